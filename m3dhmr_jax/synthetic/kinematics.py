"""Turning and skinning a hand without an accelerator; equal to `m3dhmr_jax.hand.pose_hand`.

Axes: j = 16 skeleton joints in MANO order, v vertices, n = 21 landmarks, p shape directions.
Float32 throughout: the compiled loops exist once, for one type.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.hand import HandModel


class Posed(NamedTuple):
    """A posed hand; metres, in the frame the global turn leads to."""

    verts_m: Float[np.ndarray, "v 3"]
    skeleton_m: Float[np.ndarray, "j 3"]
    turns: Float[np.ndarray, "j 3 3"]  # Of each bone, from the rest frame.


@numba.njit(cache=True)
@no_type_check
def chain(rotations, joints, parents):
    """Turn and place of every bone from each joint's own rotation."""
    turns, places = np.empty_like(rotations), np.empty_like(joints)
    turns[0], places[0] = rotations[0], joints[0]
    for j in range(1, len(parents)):
        up = parents[j]
        for a in range(3):
            place = places[up, a]
            for b in range(3):
                place += turns[up, a, b] * (joints[j, b] - joints[up, b])
                turn = np.float32(0)
                for c in range(3):
                    turn += turns[up, a, c] * rotations[j, c, b]
                turns[j, a, b] = turn
            places[j, a] = place
    return turns, places


@numba.njit(cache=True)
@no_type_check
def skin(rest, weights, turns, places, joints):
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
                turn = turns[j, a]
                out[v, a] += w * (places[j, a] + turn[0] * x + turn[1] * y + turn[2] * z)
    return out


def rest_joints(hand: HandModel, shape: Float[np.ndarray, " p"]) -> Float[np.ndarray, "j 3"]:
    """Skeleton joints of a hand of this shape at rest, metres."""
    joints = hand.rest_joints + np.einsum("p,pja->ja", shape, hand.joint_shape_basis)
    return joints.astype(np.float32)


def pose(
    hand: HandModel, rotations: Float[np.ndarray, "j 3 3"], shape: Float[np.ndarray, " p"]
) -> Posed:
    """Poses `hand` as `m3dhmr_jax.hand.pose_hand` does, on one core in a tenth of a millisecond."""
    rest = hand.verts_m + np.einsum("p,pva->va", shape, hand.shape_basis)
    if hand.pose_basis is not None:
        bend = (rotations[1:] - np.eye(3)).reshape(-1)
        rest = rest + np.einsum("q,qva->va", bend, hand.pose_basis)
    joints = rest_joints(hand, shape)
    turns, places = chain(rotations.astype(np.float32), joints, hand.parents)
    weights = hand.skin_weights.astype(np.float32)
    return Posed(skin(rest.astype(np.float32), weights, turns, places, joints), places, turns)
