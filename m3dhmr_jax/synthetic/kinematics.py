"""Forward kinematics and skinning by numba; equals `m3dhmr_jax.hand.pose_hand`.

Axes: j = 16 skeleton joints in MANO order, v vertices, p shape directions.
Float32 throughout: the loops are compiled for one dtype.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.hand import HandModel


class Posed(NamedTuple):
    """A posed hand; metres, in the frame of the global rotation."""

    verts_m: Float[np.ndarray, "v 3"]
    skeleton_m: Float[np.ndarray, "j 3"]
    # Rotation of each bone from the rest frame.
    rotations: Float[np.ndarray, "j 3 3"]


@numba.njit(cache=True)
@no_type_check
def chain(local_rotations, joints, parents):
    """Global rotation and position of every bone from each joint's own rotation."""
    rotations, positions = local_rotations.copy(), joints.copy()
    for j in range(1, len(parents)):
        up = parents[j]
        for a in range(3):
            position = positions[up, a]
            for b in range(3):
                position += rotations[up, a, b] * (joints[j, b] - joints[up, b])
                element = np.float32(0)
                for c in range(3):
                    element += rotations[up, a, c] * local_rotations[j, c, b]
                rotations[j, a, b] = element
            positions[j, a] = position
    return rotations, positions


@numba.njit(cache=True)
@no_type_check
def skin(rest, weights, rotations, positions, joints):
    """Linear blend skinning."""
    out = np.zeros_like(rest)
    for v in range(len(rest)):
        for j in range(len(joints)):
            w = weights[v, j]
            if w == 0:
                continue
            x, y, z = (
                rest[v, 0] - joints[j, 0],
                rest[v, 1] - joints[j, 1],
                rest[v, 2] - joints[j, 2],
            )
            for a in range(3):
                row = rotations[j, a]
                out[v, a] += w * (positions[j, a] + row[0] * x + row[1] * y + row[2] * z)
    return out


def rest_joints(hand: HandModel, shape: Float[np.ndarray, " p"]) -> Float[np.ndarray, "j 3"]:
    """Skeleton joints of a hand of this shape at rest, metres."""
    joints = hand.rest_joints + np.einsum("p,pja->ja", shape, hand.joint_shape_basis)
    return joints.astype(np.float32)


def pose(
    hand: HandModel, rotations: Float[np.ndarray, "j 3 3"], shape: Float[np.ndarray, " p"]
) -> Posed:
    """Poses `hand` as `m3dhmr_jax.hand.pose_hand` does, in 0.1 ms on one core.

    `rotations`: each joint's own.
    """
    rest = hand.verts_m + np.einsum("p,pva->va", shape, hand.shape_basis)
    if hand.pose_basis is not None:
        bend = (rotations[1:] - np.eye(3)).reshape(-1)
        rest = rest + np.einsum("q,qva->va", bend, hand.pose_basis)
    joints = rest_joints(hand, shape)
    bones, positions = chain(rotations.astype(np.float32), joints, hand.parents)
    weights = hand.skin_weights.astype(np.float32)
    verts_m = skin(rest.astype(np.float32), weights, bones, positions, joints)
    return Posed(verts_m, positions, bones)
