"""Posing a hand: shape blend, pose blend if the hand has one, linear blend skinning.

Everything is written for one hand; batch with `jax.vmap`. Axes as in `model.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.math3d import rotation_matrices

# By default accelerators round the factors of a product to 8 or 11 bits: millimetres.
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class PosedHand(NamedTuple):
    """A posed surface and its joints, in metres; the wrist joint keeps its rest position."""

    verts_m: Float[Array, "v 3"]
    # MANO order.
    skeleton_m: Float[Array, "j 3"]
    # Regressed from the posed vertices, FreiHAND order.
    joints_m: Float[Array, "n 3"]


def pose_hand(
    hand: HandModel, rotations: Float[Array, "j 3 3"], shape: Float[Array, " p"]
) -> PosedHand:
    """Poses `hand` by each joint's own rotation (global first) and shape coefficients.

    The global rotation is about the wrist joint. `pose_mean` is not added here: it belongs to the
    axis-angle parameters, see `rotations_from_pose`.
    """
    joints = joints_at_rest(hand, shape)
    bones, positions = _forward_kinematics(hand.parents.tolist(), rotations, joints)
    verts_m = skin(hand, bones, positions, rotations, shape)
    return PosedHand(verts_m, positions, _einsum("nv,va->na", hand.joint_regressor, verts_m))


def skin(
    hand: HandModel,
    bones: Float[Array, "j 3 3"],
    positions: Float[Array, "j 3"],
    rotations: Float[Array, "j 3 3"],
    shape: Float[Array, " p"],
) -> Float[Array, "v 3"]:
    """The surface over posed bones, metres.

    Args:
        bones, positions: global rotation of each bone from rest, and position of its joint.
        rotations: each joint's own rotation, which pose correctives depend on.
    """
    rest = hand.verts_m + _einsum("p,pva->va", shape, hand.shape_basis)
    if hand.pose_basis is not None:
        bend = (rotations[1:] - jnp.eye(3)[None]).reshape(-1)
        rest = rest + _einsum("q,qva->va", bend, hand.pose_basis)
    offset = positions - _einsum("jab,jb->ja", bones, joints_at_rest(hand, shape))
    blended = _einsum("vj,jab->vab", hand.skin_weights, bones)
    return _einsum("vab,vb->va", blended, rest) + _einsum("vj,ja->va", hand.skin_weights, offset)


def joints_at_rest(hand: HandModel, shape: Float[Array, " p"]) -> Float[Array, "j 3"]:
    """Skeleton joints of a hand of this shape, metres."""
    return jnp.asarray(hand.rest_joints) + _einsum("p,pja->ja", shape, hand.joint_shape_basis)


def _forward_kinematics(
    parents: list[int], rotations: Float[Array, "j 3 3"], joints: Float[Array, "j 3"]
) -> tuple[Float[Array, "j 3 3"], Float[Array, "j 3"]]:
    """Global rotation and position of every joint, from its own rotation and rest position."""
    chain, positions = [rotations[0]], [joints[0]]
    for joint, parent in enumerate(parents[1:], start=1):
        chain.append(_einsum("ab,bc->ac", chain[parent], rotations[joint]))
        bone = joints[joint] - joints[parent]
        positions.append(positions[parent] + _einsum("ab,b->a", chain[parent], bone))
    return jnp.stack(chain), jnp.stack(positions)


def rotations_from_pose(hand: HandModel, pose: Float[Array, "j 3"]) -> Float[Array, "j 3 3"]:
    """Rotations from axis-angle in MANO's convention: `pose_mean` is added to all but the first."""
    return rotation_matrices(pose + jnp.pad(hand.pose_mean, ((1, 0), (0, 0))))
