"""Posing a hand: shape blend, pose blend where present, linear blend skinning.

Everything is written for one hand; batch with `jax.vmap`. Axes as in `model.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from m3dhmr_jax.hand.model import HandModel

# Accelerators round the factors of a product to 8 or 11 bits unless told otherwise: millimetres.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class PosedHand(NamedTuple):
    """A posed surface, its joints and landmarks, in metres; the wrist joint stays in place."""

    verts_m: Float[Array, "v 3"]
    skeleton_m: Float[Array, "j 3"]  # The 16 skeleton joints, MANO order.
    joints_m: Float[Array, "n 3"]  # Regressed from the posed vertices, FreiHAND order.


def rotation_matrices(axis_angle: Float[Array, "j 3"]) -> Float[Array, "j 3 3"]:
    """Rodrigues' formula; exact and differentiable at zero."""
    return jax.vmap(_rotation_matrix)(axis_angle)


def _rotation_matrix(axis_angle: Float[Array, "3"]) -> Float[Array, "3 3"]:
    square = _einsum("a,a->", axis_angle, axis_angle)
    small = square < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1.0, square))  # The slope of sqrt is infinite at 0.
    sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    # Half angles, as 1 - cos(angle) loses all digits when the angle is small.
    cosine = jnp.where(small, 0.5 - square / 24, 2 * (jnp.sin(angle / 2) / angle) ** 2)
    x, y, z = axis_angle
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    return jnp.eye(3) + sine * cross + cosine * _einsum("ab,bc->ac", cross, cross)


def pose_hand(
    hand: HandModel, rotations: Float[Array, "j 3 3"], shape: Float[Array, " p"]
) -> PosedHand:
    """Poses `hand`: `rotations` are the joints' own turns (global first), `shape` the coefficients.

    The global turn is about the wrist joint. `pose_mean` is not added here: it belongs to the
    axis-angle parameters, `articulation` adds it.
    """
    rest = hand.verts_m + _einsum("p,pva->va", shape, hand.shape_basis)
    joints = jnp.asarray(hand.rest_joints) + _einsum("p,pja->ja", shape, hand.joint_shape_basis)
    if hand.pose_basis is not None:
        bend = (rotations[1:] - jnp.eye(3)[None]).reshape(-1)
        rest = rest + _einsum("q,qva->va", bend, hand.pose_basis)
    turn, place = _chain(hand.parents.tolist(), rotations, joints)
    offset = place - _einsum("jab,jb->ja", turn, joints)
    blended = _einsum("vj,jab->vab", hand.skin_weights, turn)
    vertices = _einsum("vab,vb->va", blended, rest) + _einsum(
        "vj,ja->va", hand.skin_weights, offset
    )
    return PosedHand(vertices, place, _einsum("nv,va->na", hand.joint_regressor, vertices))


def _chain(
    parents: list[int], rotations: Float[Array, "j 3 3"], joints: Float[Array, "j 3"]
) -> tuple[Float[Array, "j 3 3"], Float[Array, "j 3"]]:
    """Turn and place of every joint in the world, from each joint's own turn and rest place."""
    turns, places = [rotations[0]], [joints[0]]
    for joint, parent in enumerate(parents[1:], start=1):
        turns.append(_einsum("ab,bc->ac", turns[parent], rotations[joint]))
        bone = joints[joint] - joints[parent]
        places.append(places[parent] + _einsum("ab,b->a", turns[parent], bone))
    return jnp.stack(turns), jnp.stack(places)


def articulation(hand: HandModel, pose: Float[Array, "j 3"]) -> Float[Array, "j 3 3"]:
    """Rotations from axis-angle in MANO's convention: `pose_mean` is added to all but the first."""
    return rotation_matrices(pose + jnp.pad(hand.pose_mean, ((1, 0), (0, 0))))
