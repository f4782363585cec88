"""MANO: the user's own MANO_RIGHT.pkl as a HandModel.

MANO (Romero et al. 2017) has its own licence: register at https://mano.is.tue.mpg.de, download
"Models & Code" and take `models/MANO_RIGHT.pkl` out of it. FreiHAND's meshes have its vertex order.
Axes as in `model.py`; q = 135 pose directions.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand.builtin import load_builtin
from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.hand.pickled_arrays import read_arrays
from m3dhmr_jax.runtime.files import user_path

EXPECTED = "the official MANO_RIGHT.pkl of https://mano.is.tue.mpg.de (models/MANO_RIGHT.pkl)"
SHAPES = {
    "v_template": (778, 3),
    "f": (1538, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "kintree_table": (2, 16),
    "hands_mean": (45,),
}
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
TIP_VERTICES = (744, 320, 443, 555, 672)  # Thumb to little, as in FreiHAND's toolbox.
# Indices into MANO's joints followed by the five tips.
FREIHAND_ORDER = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
REGION_OF_JOINT = np.repeat([0, 2, 3, 5, 4, 1], [1, 3, 3, 3, 3, 3]).astype(np.int32)
INDEX, MIDDLE, LITTLE, LAST_OF_THUMB = 1, 4, 7, 15  # Joints.


def load_mano(path: str | Path) -> HandModel:
    """MANO's right hand from the official pickle, or from one saved again with plain arrays.

    FreiHAND's joints are MANO's 16 joints regressed from the posed mesh and five of its vertices.

    Raises:
        UserError: if there is no such file, it is not a pickle of arrays (nothing in it is run
            then), or it is another model or the left hand.
    """
    path = user_path(path)
    arrays = read_arrays(path, tuple(SHAPES), EXPECTED)
    for name, shape in SHAPES.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"{path}: {name!r} has shape {arrays[name].shape}, expected {shape}: it is another "
                f"model; expected {EXPECTED}"
            )
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{path}: {name!r} holds numbers that are not finite; get it again")
    regressor = arrays["J_regressor"].astype(np.float64)
    rest = arrays["v_template"].astype(np.float64)
    parents = arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # The file has the largest unsigned number there.
    if tuple(parents.tolist()) != PARENTS:
        raise UserError(
            f"{path}: 'kintree_table' has the parents {parents.tolist()}, expected "
            f"{list(PARENTS)}: the joints are another model's; expected {EXPECTED}"
        )
    tips = np.eye(len(rest))[list(TIP_VERTICES)]
    shape_basis = arrays["shapedirs"].astype(np.float64).transpose(2, 0, 1)
    weights = arrays["weights"]
    try:
        hand = HandModel(
            verts_m=_float32(rest),
            faces=arrays["f"].astype(np.int32),
            rest_joints=_float32(regressor @ rest),
            parents=parents.astype(np.int32),
            skin_weights=_float32(weights),
            joint_regressor=_float32(np.concatenate([regressor, tips])[list(FREIHAND_ORDER)]),
            regions=REGION_OF_JOINT[weights.argmax(1)],
            shape_basis=_float32(shape_basis),
            joint_shape_basis=_float32(np.einsum("jv,pva->pja", regressor, shape_basis)),
            pose_basis=_float32(arrays["posedirs"].transpose(2, 0, 1)),
            pose_mean=_float32(arrays["hands_mean"].reshape(15, 3)),
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}; expected {EXPECTED}") from error
    _check_side(path, hand)
    return hand


def _float32(array: np.ndarray) -> Float[np.ndarray, "..."]:
    return np.ascontiguousarray(array, np.float32)


def _check_side(path: Path, hand: HandModel) -> None:
    """Rejects a left hand and a surface turned inside out, in any frame.

    Seen along the fingers of a right hand held palm down, the thumb is below and on the left; the
    mirror image gives the triple product of these directions the other sign.
    """
    joints = hand.rest_joints.astype(np.float64)
    along = joints[MIDDLE] - joints[0]
    across = joints[LITTLE] - joints[INDEX]
    down = joints[LAST_OF_THUMB] - joints[INDEX]
    if np.linalg.det(np.stack([along, across, down])) < 0:
        raise UserError(
            f"{path}: this is a left hand, but only right hands are modelled (images of left ones "
            f"are mirrored); expected {EXPECTED}"
        )
    middle = hand.verts_m.mean(axis=0)
    corners = (hand.verts_m - middle)[hand.faces].astype(np.float64)
    if np.linalg.det(corners).sum() < 0:
        raise UserError(
            f"{path}: the faces of 'f' point inwards, as in a mirrored hand; expected {EXPECTED}"
        )


def load_mano_or_builtin(path: str) -> HandModel:
    """The hand in the user's MANO_RIGHT.pkl, or the built-in one for "".

    Raises:
        UserError: as `load_mano`.
    """
    return load_mano(path) if path else load_builtin()
