"""FreiHAND's MANO parameters, `*_mano.json`: meshes of releases without annotated vertices.

A record has 61 numbers, in the official files inside one more list: 48 for the pose (axis-angle,
MANO's joints, its mean pose not included), 10 for the shape, then the position of joint 9: its
pixel (u, v) and a scale, focal length divided by depth.
Axes: a annotations, v vertices.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from m3dhmr_jax.data.json_stream import read_records
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.hand.skinning import pose_hand, rotations_from_pose

N_POSE, N_SHAPE = 48, 10
N_PARAMETERS = N_POSE + N_SHAPE + 3
MANO_ROOT_JOINT = 9  # The base of the middle finger.
CHUNK = 256  # Hands posed at a time.


def read_parameters(path: Path) -> Float[np.ndarray, "a 61"]:
    """The records of a parameter file; raises as `read_records`."""
    with path.open("rb") as file:
        is_wrapped = b"".join(file.read(64).split()).startswith(b"[[[")
    shape = (1, N_PARAMETERS) if is_wrapped else (N_PARAMETERS,)
    return read_records(path, shape).reshape(-1, N_PARAMETERS)


def roots_m(
    landmarks_px: Float[np.ndarray, "a 2"],
    scales_px_per_m: Float[np.ndarray, " a"],
    intrinsics: Float[np.ndarray, "a 3 3"],
) -> Float[np.ndarray, "a 3"]:
    """Positions of pixels in camera space: scaled orthographic, as in FreiHAND's toolbox."""
    focal_px = (intrinsics[:, 0, 0] + intrinsics[:, 1, 1]) / 2
    from_centre_px = np.concatenate(
        [landmarks_px - intrinsics[:, :2, 2], focal_px[:, None]], axis=1
    )
    return from_centre_px / scales_px_per_m[:, None]


def posed_vertices_m(
    hand: HandModel,
    parameters: Float[np.ndarray, "a 61"],
    intrinsics: Float[np.ndarray, "a 3 3"],
) -> Float[np.ndarray, "a v 3"]:
    """The meshes of parameter records in camera space, metres.

    Raises:
        UserError: if a scale is not positive, or the hand has another number of shape directions.
    """
    if len(hand.shape_basis) != N_SHAPE:
        raise UserError(
            f"the hand has {len(hand.shape_basis)} shape directions, expected MANO's {N_SHAPE}"
        )
    poses, shapes, landmarks_px, scales = np.split(
        parameters, np.cumsum([N_POSE, N_SHAPE, 2]), axis=1
    )
    if not (scales > 0).all():
        bad = int(np.argmin(scales[:, 0]))
        raise UserError(
            f"record {bad} has the scale {scales[bad, 0]:g}; it is focal length divided by depth, "
            "so it must be positive"
        )
    roots = roots_m(landmarks_px, scales[:, 0], intrinsics).astype(np.float32)

    @jax.jit
    @jax.vmap
    def posed(
        pose: Float[Array, "48"], shape: Float[Array, "10"], root_m: Float[Array, "3"]
    ) -> Float[Array, "v 3"]:
        verts_m, _, joints_m = pose_hand(
            hand, rotations_from_pose(hand, pose.reshape(-1, 3)), shape
        )
        return verts_m + (root_m - joints_m[MANO_ROOT_JOINT])[None]

    verts_m = np.empty((len(parameters), *hand.verts_m.shape), np.float32)
    for start in range(0, len(parameters), CHUNK):
        rows = slice(start, start + CHUNK)
        inputs = (poses[rows], shapes[rows], roots[rows])
        missing = CHUNK - len(inputs[0])  # One shape: compiled once.
        padded = (jnp.asarray(np.pad(x, ((0, missing), (0, 0)))) for x in inputs)
        verts_m[rows] = np.asarray(posed(*padded))[: CHUNK - missing]
    return verts_m
