"""The constants of a hand as the page reads them (`page/tables.js`).

`hand.json` holds, by name, each array's type, shape and offset in `hand.bin`, whose numbers are
little-endian and aligned to four bytes.
"""

import json
from pathlib import Path

import numpy as np

from m3dhmr_jax.fitting.search import build_start
from m3dhmr_jax.fitting.terms import DEFAULT_WEIGHTS, build_tables
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.files import write_atomic

ALIGNMENT = 4


def hand_tables(hand: HandModel) -> dict[str, np.ndarray]:
    """What the fit, its mesh and its drawing need of a hand, by the names that Python uses.

    Raises:
        ValueError: if the hand has pose correctives, which the page does not apply.
    """
    if hand.pose_basis is not None:
        raise ValueError("HandModel.pose_basis is not None: the page applies no pose correctives")
    tables = build_tables(hand, DEFAULT_WEIGHTS.base_shift, DEFAULT_WEIGHTS.tip_shift)
    start, points, contacts = build_start(tables), tables.points, tables.contacts
    floats = {
        "offsets_m": points.offsets_m,
        "by_shape_m": points.by_shape_m,
        "links": points.links,
        "before": points.before,
        "after": points.after,
        "distance_m": contacts.distance_m,
        "prior_mean_rad": tables.prior_mean_rad,
        "prior_precision": tables.prior_precision,
        "low_rad": tables.low_rad,
        "high_rad": tables.high_rad,
        "start_joints_m": start.joints_m.T,
        "start_rotations": start.rotations,
        "verts_m": hand.verts_m,
        "rest_joints": hand.rest_joints,
        "skin_weights": hand.skin_weights,
        "joint_regressor": hand.joint_regressor,
        "shape_basis": hand.shape_basis,
        "joint_shape_basis": hand.joint_shape_basis,
    }
    return {
        **{name: array.astype(np.float32) for name, array in floats.items()},
        "faces": hand.faces.astype(np.uint16),
        "ends": contacts.ends.astype(np.uint8),
        "groups": contacts.groups.astype(np.uint8),
    }


def write_hand_tables(hand: HandModel, folder: Path) -> None:
    """Writes `hand.bin` and `hand.json` into a folder."""
    content, index = bytearray(), {}
    for name, array in hand_tables(hand).items():
        index[name] = {"dtype": array.dtype.name, "shape": array.shape, "offset": len(content)}
        content += array.astype(array.dtype.newbyteorder("<")).tobytes()
        content += bytes(-len(content) % ALIGNMENT)
    with write_atomic(folder / "hand.bin") as path:
        path.write_bytes(content)
    with write_atomic(folder / "hand.json") as path:
        path.write_text(json.dumps(index))
