"""Landmarks and joints of a posed hand without its surface, and their derivatives.

Skinning is linear in the bones' rotations, so a regressed landmark is `sum_j S_j e_j`: one vector
per bone instead of 778 vertices. Rotating joint k about an axis moves it by `axis x a_k`, where
the arm `a_k` is the same sum over the bones that move with k.

Written for one hand; batch with `jax.vmap`. Axes: m = 37 points, the 21 landmarks in FreiHAND order
and the 16 joints in MANO order; j = 16 bones, f = 15 finger joints, a = 45 angles
(`m3dhmr_jax.hand.articulation`), p shape directions, c = 48 + p columns: global rotation, angles,
shape. Points lie along the last axis, where loops over them are fast. Everything is relative to the
wrist joint.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from m3dhmr_jax.hand.articulation import angle_axes, angle_rotations, joint_frames
from m3dhmr_jax.hand.capsules import TIP_LANDMARKS
from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.types import N_JOINTS, ROOT, FloatArray

FINGER_BASES, FINGERTIPS = np.array([5, 9, 13, 17]), np.array(TIP_LANDMARKS)
_FINGERS, _SEGMENTS = 5, 3  # Chains of MANO's order, which the code below relies on.


class PointTable(NamedTuple):
    """Constants of a hand; vectors are in the frame of their bone's joint axes."""

    # Flattened (j, 3, m): e of the mean shape, its change with shape and with R - I of the joints.
    offsets_m: Float[np.ndarray, " jm"]
    by_shape_m: Float[np.ndarray, "p jm"]
    by_pose_m: Float[np.ndarray, "q jm"] | None
    # (j, 3, p, m) as (3 j, p m): the same as by_shape_m.
    shape_columns_m: Float[np.ndarray, "k pm"]
    # From each joint's axes to those of its parent (of the wrist for the first of each finger).
    links: Float[np.ndarray, "5 3 3 3"]
    # A joint's own rotation is `before @ R @ after`.
    before: Float[np.ndarray, "f 3 3"]
    # With the wrist's, which is the identity.
    after: Float[np.ndarray, "j 3 3"]


class PosedPoints(NamedTuple):
    """Points of a posed hand and what their derivatives need."""

    points_m: Float[Array, "3 m"]
    # What moves with each joint, the global rotation first: the points relative to the joint,
    # weighted by how much they move with it.
    arms_m: Float[Array, "j 3 m"]
    # Columns: the axis of rotation of each angle.
    axes: Float[Array, "j 3 3"]
    # From each bone's joint axes.
    bones: Float[Array, "j 3 3"]


def build_point_table(
    hand: HandModel, base_shift: float = 0.0, tip_shift: float = 0.0
) -> PointTable:
    """Constants for `pose_points`.

    Args:
        base_shift: moves the landmarks of the finger bases so much of the way to the wrist's, as
            other landmark conventions have it.
        tip_shift: the same of the fingertips, towards the last joint of the finger.
    """
    parents = hand.parents
    if parents.tolist() != [-1, *(p for j in range(1, 16, 3) for p in (0, j, j + 1))]:
        raise ValueError(f"HandModel.parents={parents.tolist()} must be five fingers of three")
    weights = np.einsum("nv,vj->njv", hand.joint_regressor, hand.skin_weights, dtype=np.float64)
    weight_sums = np.concatenate([weights.sum(2), np.eye(len(parents))])
    frames = joint_frames(hand)
    after = np.concatenate([np.eye(3)[None], frames.after])

    def in_joint_axes(offsets: Float[np.ndarray, "m j 3"]) -> Float[np.ndarray, " jm"]:
        shifted = offsets.copy()
        shifted[FINGER_BASES] += base_shift * (offsets[ROOT] - offsets[FINGER_BASES])
        shifted[FINGERTIPS] += tip_shift * (offsets[FINGERTIPS - 1] - offsets[FINGERTIPS])
        return np.einsum("jab,mjb->jam", after, shifted).astype(np.float32).reshape(-1)

    def table(verts_m: np.ndarray, joints_m: np.ndarray) -> Float[np.ndarray, " jm"]:
        moments = np.einsum("njv,va->nja", weights, verts_m.astype(np.float64))
        moments = np.concatenate([moments, joints_m * np.eye(len(parents))[..., None]])
        return in_joint_axes(_offsets(moments, weight_sums, joints_m.astype(np.float64), parents))

    by_shape = np.stack([*map(table, hand.shape_basis, hand.joint_shape_basis)])
    by_pose = None
    if hand.pose_basis is not None:
        moments = np.einsum("njv,qva->qnja", weights, hand.pose_basis, optimize=True)
        moments = np.pad(moments, [(0, 0), (0, len(parents)), (0, 0), (0, 0)])
        by_pose = np.stack([*map(in_joint_axes, moments)])
    p, m = len(by_shape), len(weight_sums)
    columns = np.moveaxis(by_shape.reshape(p, -1, m), 0, 1).reshape(-1, p * m)
    links = np.einsum("jab,jbc->jac", after[parents[1:]], frames.before)
    return PointTable(
        offsets_m=table(hand.verts_m, hand.rest_joints),
        by_shape_m=by_shape,
        by_pose_m=by_pose,
        shape_columns_m=columns,
        links=links.reshape(_FINGERS, _SEGMENTS, 3, 3).astype(np.float32),
        before=frames.before.astype(np.float32),
        after=after.astype(np.float32),
    )


def _offsets(
    moments: Float[np.ndarray, "m j 3"],
    weight_sums: Float[np.ndarray, "m j"],
    joints_m: Float[np.ndarray, "j 3"],
    parents: Int[np.ndarray, " j"],
) -> Float[np.ndarray, "m j 3"]:
    """The vector of each bone: its weighted skin, and the bones that lead on from it."""
    offsets = moments - weight_sums[..., None] * joints_m
    carried = weight_sums.copy()
    for joint in range(len(parents) - 1, 0, -1):
        parent = parents[joint]
        bone = joints_m[joint] - joints_m[parent]
        offsets[:, parent] += carried[:, joint, None] * bone
        carried[:, parent] += carried[:, joint]
    return offsets


def pose_points(
    table: PointTable,
    rotation: Float[Array, "3 3"],
    angles_rad: Float[Array, " a"],
    shape: Float[Array, " p"],
) -> PosedPoints:
    """Poses the points; `rotation` is the global one, about the wrist joint."""
    angles = angles_rad.reshape(-1, 3)
    turns = angle_rotations(angles)
    chain = turns.reshape(_FINGERS, _SEGMENTS, 3, 3)
    frames, bones, parent = [], [], jnp.broadcast_to(rotation[None], (_FINGERS, 3, 3))
    for segment in range(_SEGMENTS):
        frames.append(times(parent, table.links[:, segment]))
        parent = times(frames[-1], chain[:, segment])
        bones.append(parent)
    frames, bones = (jnp.stack(x, axis=1).reshape(-1, 3, 3) for x in (frames, bones))
    axes = jnp.concatenate([jnp.eye(3)[None], times(frames, angle_axes(angles))])
    bones = jnp.concatenate([rotation[None], bones])
    offsets = table.offsets_m + jnp.dot(shape, table.by_shape_m, precision="highest")
    if table.by_pose_m is not None:
        bend = own_rotations(table, turns) - jnp.eye(3)[None]
        offsets += jnp.dot(bend.reshape(-1), table.by_pose_m, precision="highest")
    turned = times(bones, offsets.reshape(len(bones), 3, -1))
    first, middle, last = jnp.moveaxis(turned[1:].reshape(_FINGERS, _SEGMENTS, 3, -1), 1, 0)
    middle = middle + last
    first = first + middle
    arms = jnp.stack([first, middle, last], axis=1).reshape(len(bones) - 1, 3, -1)
    points = turned[0] + jnp.sum(first, axis=0)
    return PosedPoints(points, jnp.concatenate([points[None], arms]), axes, bones)


def own_rotations(table: PointTable, turns: Float[Array, "f 3 3"]) -> Float[Array, "f 3 3"]:
    """Each joint's own rotation, as `pose_hand` takes it, from that in its axes."""
    return times(times(table.before, turns), table.after[1:])


def times(a: Float[FloatArray, "k 3 3"], b: Float[FloatArray, "k 3 d"]) -> Float[Array, "k 3 d"]:
    """Small products as plain arithmetic: precise on every device, and no library calls."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    x, y, z = (a[:, :, i, None] * b[:, None, i] for i in range(3))
    return x + y + z


def point_derivatives(
    table: PointTable, posed: PosedPoints, count: int = N_JOINTS
) -> Float[Array, "c 3 m"]:
    """Derivatives of the first `count` points.

    The global rotation's are those of a small rotation about the camera's axes. The motion of
    MANO's pose correctives, under a millimetre, is left out.
    """
    arms = posed.arms_m[:, None, :, :count]
    axes = jnp.swapaxes(posed.axes, 1, 2)[..., None]
    by_rotation = cross(axes, arms).reshape(-1, 3, count)
    return jnp.concatenate([by_rotation, shape_derivatives(table, posed)[:, :, :count]])


def shape_derivatives(table: PointTable, posed: PosedPoints) -> Float[Array, "p 3 m"]:
    bones = jnp.swapaxes(posed.bones, 0, 1).reshape(3, -1)
    columns = jnp.dot(bones, table.shape_columns_m, precision="highest")
    return jnp.swapaxes(columns.reshape(3, len(table.by_shape_m), -1), 0, 1)


def cross(a: Float[Array, "... 3 _"], b: Float[Array, "... 3 _"]) -> Float[Array, "... 3 _"]:
    """Cross product along the second last axis."""
    (ax, ay, az), (bx, by, bz) = (jnp.moveaxis(x, -2, 0) for x in (a, b))
    return jnp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-2)
