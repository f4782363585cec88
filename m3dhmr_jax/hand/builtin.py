"""The built-in hand: a licence-free right hand that ships with the program.

Hand surface derived from the MakeHuman / MPFB base mesh (CC0). It has MANO's numbers of vertices,
faces and joints but is not index-compatible with it.
"""

import dataclasses
import functools
import importlib.resources

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.hand.model import CoarseLevel, HandModel


@dataclasses.dataclass(frozen=True, eq=False)
class HandDetails:
    """What only the renderer needs to know: how joints bend and where skin differs.

    Attributes:
        axes: per skeleton joint its flexion, abduction and twist axis at rest (rows).
        relaxed: per skeleton joint its own rotation from rest to a relaxed hand.
        palmar, nail, knuckle, crease, tip: masks in [0, 1] per vertex.
    """

    axes: Float[np.ndarray, "j 3 3"]
    relaxed: Float[np.ndarray, "j 3 3"]
    palmar: Float[np.ndarray, " v"]
    nail: Float[np.ndarray, " v"]
    knuckle: Float[np.ndarray, " v"]
    crease: Float[np.ndarray, " v"]
    tip: Float[np.ndarray, " v"]


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    path = importlib.resources.files("m3dhmr_jax.hand") / "cc0_hand.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def _coarse_level(arrays: dict[str, np.ndarray], level: int) -> CoarseLevel:
    faces = arrays[f"lv{level}_faces"].astype(np.int32)
    return CoarseLevel(
        kept=arrays[f"lv{level}_sub"].astype(np.int32),
        faces=faces,
        up_indices=faces[arrays[f"lv{level}_up_f"]],
        up_weights=arrays[f"lv{level}_up_b"],
    )


@functools.cache
def load_builtin() -> HandModel:
    """The built-in hand with its own coarser levels (778, 389, 195, 98, 49 vertices)."""
    arrays = _arrays()
    joints = arrays["J"]
    weights = arrays["weights"]
    return HandModel(
        verts_m=arrays["v_template"],
        faces=arrays["faces"].astype(np.int32),
        rest_joints=joints,
        parents=arrays["parents"].astype(np.int32),
        skin_weights=weights / weights.sum(1, keepdims=True),
        joint_regressor=arrays["regressor"],
        regions=arrays["region"].astype(np.int32),
        shape_basis=arrays["shapedirs"],
        joint_shape_basis=arrays["J_shapedirs"],
        pose_basis=None,
        pose_mean=np.zeros((len(joints) - 1, 3), np.float32),
        levels=tuple(_coarse_level(arrays, level) for level in (1, 2, 3, 4)),
    )


@functools.cache
def load_details() -> HandDetails:
    """What the renderer needs besides the built-in hand's model."""
    arrays = _arrays()
    return HandDetails(
        axes=arrays["axes"],
        relaxed=np.tile(np.eye(3), (len(arrays["axes"]), 1, 1)),  # It is at rest.
        palmar=arrays["palmar"],
        nail=arrays["nail"],
        knuckle=arrays["knuckle"],
        crease=arrays["crease"],
        tip=arrays["tipmask"],
    )
