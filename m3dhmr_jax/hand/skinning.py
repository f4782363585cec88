"""Posing a hand: shape blend, pose blend where present, linear blend skinning.

Everything is written for one hand; batch with `jax.vmap`. Axes as in `model.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from m3dhmr_jax.hand.model import HandModel


class PosedHand(NamedTuple):
    """A posed surface, its skeleton joints and its 21 landmarks, metres, wrist joint at its rest place."""

    vertices: Float[Array, "v 3"]
    joints: Float[Array, "j 3"]  # Kinematic, MANO order.
    landmarks: Float[Array, "n 3"]  # Regressed from the posed vertices, FreiHAND order.


def rotation_matrices(axis_angle: Float[Array, "*k 3"]) -> Float[Array, "*k 3 3"]:
    """Rodrigues' formula; exact and differentiable at zero."""
    square = jnp.sum(axis_angle**2, axis=-1)[..., None, None]
    small = square < 1e-8
    angle = jnp.sqrt(jnp.where(small, 1.0, square))  # The slope of sqrt is infinite at 0.
    sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 0.5 - square / 24, (1 - jnp.cos(angle)) / angle**2)
    x, y, z = jnp.moveaxis(axis_angle, -1, 0)
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    cross = cross.reshape(*axis_angle.shape, 3)
    return jnp.eye(3) + sine * cross + cosine * (cross @ cross)


def pose_hand(
    hand: HandModel, rotations: Float[Array, "j 3 3"], shape: Float[Array, " p"]
) -> PosedHand:
    """Poses `hand`: `rotations` are the joints' own turns (global first), `shape` the coefficients.

    `pose_mean` is not added here: it belongs to the axis-angle parameters, `articulation` adds it.
    """
    rest = hand.vertices + jnp.tensordot(shape, hand.shape_basis, 1)
    joints = hand.rest_joints + jnp.tensordot(shape, hand.joint_shape_basis, 1)
    if hand.pose_basis is not None:
        bend = (rotations[1:] - jnp.eye(3)).reshape(-1)
        rest = rest + jnp.tensordot(bend, hand.pose_basis, 1)
    turns, places = [rotations[0]], [joints[0]]
    for joint, parent in enumerate(hand.parents.tolist()[1:], start=1):
        turns.append(turns[parent] @ rotations[joint])
        places.append(places[parent] + turns[parent] @ (joints[joint] - joints[parent]))
    turn, place = jnp.stack(turns), jnp.stack(places)
    offset = place - jnp.einsum("jab,jb->ja", turn, joints)
    blended = jnp.tensordot(hand.skin_weights, turn, 1)
    vertices = jnp.einsum("vab,vb->va", blended, rest) + hand.skin_weights @ offset
    return PosedHand(vertices, place, hand.joint_regressor @ vertices)


def articulation(
    hand: HandModel, pose: Float[Array, "j 3"]
) -> Float[Array, "j 3 3"]:
    """Rotations from axis-angle parameters in MANO's convention: `pose_mean` is added to all but the first."""
    mean = jnp.concatenate([jnp.zeros((1, 3)), jnp.asarray(hand.pose_mean)])
    return jax.vmap(rotation_matrices)(pose + mean)
