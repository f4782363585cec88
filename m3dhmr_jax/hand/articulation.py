"""Joint angles of a hand: their axes, limits and probability density.

Each of the 15 finger joints has three angles in radians: abduction (towards the thumb), flexion
(towards the palm) and twist, all 0 in the built-in hand's rest pose. Its own rotation is
`before @ Y(abduction) X(flexion) Z(twist) @ after`; the frames `before` and `after` of another hand
model bring its bones to the built-in hand's, so that angles, limits and density mean the same.
Axes: k any, j = 15 joints in MANO order (index, middle, little, ring, thumb, three each), a = 45
angles, joint by joint.
"""

import functools
import importlib.resources
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation

from m3dhmr_jax.hand.builtin import load_builtin, load_details
from m3dhmr_jax.hand.capsules import LAST_JOINTS, TIP_LANDMARKS
from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.math3d import shortest_rotation
from m3dhmr_jax.types import FloatArray

N_ANGLES = 45
_LONG_FINGERS, _THUMB = 4, 12  # The first four fingers of MANO's order; the thumb's first joint.


class JointFrames(NamedTuple):
    """What surrounds a joint's own rotation: `before @ R(angles) @ after`."""

    before: Float[np.ndarray, "j 3 3"]
    after: Float[np.ndarray, "j 3 3"]


class PosePrior(NamedTuple):
    """Gaussian density and limits of the angles."""

    mean_rad: Float[np.ndarray, " a"]
    covariance_rad2: Float[np.ndarray, "a a"]
    low_rad: Float[np.ndarray, " a"]
    high_rad: Float[np.ndarray, " a"]


def joint_frames(hand: HandModel) -> JointFrames:
    """Frames in which the same angles pose any hand like the built-in one."""
    builtin, axes = load_builtin(), load_details().axes
    ours, theirs = _bones(builtin), _bones(hand)
    landmarks = [each.joint_regressor @ each.verts_m for each in (builtin, hand)]
    landmarks = [each - each.mean(0) for each in landmarks]
    to_builtin = Rotation.align_vectors(*landmarks)[0].as_matrix()
    straighten = np.tile(np.eye(3), (len(hand.parents), 1, 1))
    for joint in range(1, len(straighten)):
        straighten[joint] = shortest_rotation(to_builtin @ theirs[joint], ours[joint])
    parents = hand.parents[1:]
    before = np.einsum("ba,jcb,jdc->jad", to_builtin, straighten[parents], axes[1:])
    after = np.einsum("jab,jbc,cd->jad", axes[1:], straighten[1:], to_builtin)
    return JointFrames(before, after)


def _bones(hand: HandModel) -> Float[np.ndarray, "_ 3"]:
    """From each joint to the next one or to the fingertip; 0 for the wrist."""
    landmarks = hand.joint_regressor @ hand.verts_m
    tips = dict(zip(LAST_JOINTS, landmarks[TIP_LANDMARKS], strict=True))
    bones = np.zeros_like(hand.rest_joints, np.float64)
    for joint in range(1, len(bones)):
        end = tips[joint] if joint in tips else hand.rest_joints[joint + 1]
        bones[joint] = end - hand.rest_joints[joint]
    return bones


def angle_rotations(angles_rad: Float[FloatArray, "j 3"]) -> Float[Array, "j 3 3"]:
    """`Y(abduction) X(flexion) Z(twist)`, in the joint's own axes."""
    (sy, sx, sz), (cy, cx, cz) = jnp.sin(angles_rad).T, jnp.cos(angles_rad).T
    rows = [
        *(cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx),
        *(cx * sz, cx * cz, -sx),
        *(cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx),
    ]
    return jnp.stack(rows, axis=-1).reshape(-1, 3, 3)


def angle_axes(angles_rad: Float[FloatArray, "j 3"]) -> Float[Array, "j 3 3"]:
    """Columns: the axis of rotation of each angle at these angles, in the joint's own axes."""
    (sy, sx, _), (cy, cx, _) = jnp.sin(angles_rad).T, jnp.cos(angles_rad).T
    zero, one = jnp.zeros_like(sy), jnp.ones_like(sy)
    rows = [zero, cy, sy * cx, one, zero, -sx, zero, -sy, cy * cx]
    return jnp.stack(rows, axis=-1).reshape(-1, 3, 3)


def angles_of_rotations(rotations: Float[np.ndarray, "k j 3 3"]) -> Float[np.ndarray, "k a"]:
    """Angles of the built-in hand's own joint rotations; flexion may exceed 90 degrees."""
    axes = load_details().axes[1:]
    own = np.einsum("jab,kjbc,jdc->kjad", axes, rotations, axes)
    angles = Rotation.from_matrix(own.reshape(-1, 3, 3)).as_euler("YXZ").reshape(-1, 15, 3)
    # Euler angles hold flexion to 90 degrees; the same rotation has a second set beyond.
    other = [0, np.pi, 0] + angles * [1, -1, 1] - np.sign(angles) * [np.pi, 0, np.pi]
    return np.where(np.abs(angles[..., :1]) > np.pi / 2, other, angles).reshape(-1, N_ANGLES)


@functools.cache
def load_pose_prior() -> PosePrior:
    """The density of the renderer's poses, from tools/hand/pose_prior.py, widened a little.

    The sampler couples some angles exactly and never twists a finger; people do a little.
    """
    path = importlib.resources.files("m3dhmr_jax.hand") / "pose_prior.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        mean_rad, covariance_rad2 = archive["mean_rad"], archive["covariance_rad2"]
    low, high = np.radians(_LIMITS_DEG).reshape(2, N_ANGLES)
    widened = covariance_rad2 + np.diag(np.radians(_SLACK_DEG).reshape(N_ANGLES) ** 2)
    return PosePrior(mean_rad, widened, low, high)


def _table(base, outer, tail, thumb) -> Float[np.ndarray, "j 3"]:
    """Abduction, flexion and twist of the long fingers' three joints, then of the thumb's."""
    return np.array([base, outer, tail] * _LONG_FINGERS + thumb, np.float64)


_SLACK_DEG = _table([8, 8, 5], [3, 5, 3], [3, 5, 3], [[12, 12, 8], [6, 10, 4], [4, 10, 3]])
_LIMITS_DEG = np.stack(
    [
        _table(
            *([-28, -35, -15], [-12, -12, -12], [-12, -15, -12]),
            [[-50, -45, -35], [-15, -25, -12], [-10, -35, -10]],
        ),
        _table(
            *([28, 92, 15], [12, 112, 12], [12, 85, 12]),
            [[50, 60, 40], [15, 70, 12], [10, 85, 10]],
        ),
    ]
)
