import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.hand.skinning import pose_hand, rotations_from_pose
from m3dhmr_jax.math3d import rotation_matrices

REST = np.zeros((16, 3), np.float32)
MEAN_SHAPE = jnp.zeros(10)


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


@functools.partial(jax.jit, static_argnums=0)
def posed(hand, pose, shape=MEAN_SHAPE):
    return pose_hand(hand, rotations_from_pose(hand, pose), shape)


def random_pose(seed, scale=0.4):
    return scale * np.random.default_rng(seed).normal(size=(16, 3)).astype(np.float32)


def test_pose_hand_at_zero_pose_is_the_rest_surface(hand):
    at_rest = posed(hand, REST)
    np.testing.assert_allclose(at_rest.verts_m, hand.verts_m, atol=1e-6)
    np.testing.assert_allclose(at_rest.skeleton_m, hand.rest_joints, atol=1e-6)


def test_global_rotation_is_rigid_about_the_wrist(hand):
    pose = random_pose(1)
    pose[0] = 0
    # Two arrays: JAX computes in the background and may read a NumPy array where it lies.
    turned = pose.copy()
    turned[0] = (0.7, -0.4, 1.1)
    before = posed(hand, pose)
    after = posed(hand, turned)
    rotation = np.asarray(rotation_matrices(jnp.asarray(turned[:1])))[0]
    wrist = hand.rest_joints[0]
    for name in ("verts_m", "skeleton_m", "joints_m"):
        want = (np.asarray(getattr(before, name)) - wrist) @ rotation.T + wrist
        np.testing.assert_allclose(getattr(after, name), want, atol=2e-5, err_msg=name)


def test_bent_joint_moves_only_its_descendants(hand):
    pose = REST.copy()
    pose[5] = (0, 0, 0.8)  # The middle joint of the middle finger.
    moved = np.linalg.norm(posed(hand, pose).skeleton_m - hand.rest_joints, axis=1) > 1e-5
    assert np.flatnonzero(moved).tolist() == [6]
    still = hand.skin_weights[:, [5, 6]].sum(1) == 0
    np.testing.assert_allclose(
        np.asarray(posed(hand, pose).verts_m)[still], hand.verts_m[still], atol=1e-6
    )


def test_skeleton_follows_the_shape(hand):
    shape = jnp.asarray(np.random.default_rng(2).normal(size=10), jnp.float32)
    want = hand.rest_joints + np.einsum("p,pja->ja", shape, hand.joint_shape_basis)
    np.testing.assert_allclose(posed(hand, REST, shape).skeleton_m, want, atol=1e-6)
    assert np.abs(want - hand.rest_joints).max() > 1e-3


def test_pose_hand_gradient_at_zero_pose_is_finite_and_nonzero(hand):
    target = posed(hand, random_pose(3)).joints_m
    grad_fn = jax.jit(jax.grad(lambda pose: jnp.abs(posed(hand, pose).joints_m - target).sum()))
    gradient = grad_fn(jnp.asarray(REST))
    assert jnp.isfinite(gradient).all()
    assert (jnp.abs(gradient).max(axis=1) > 0).all()


def test_pose_hand_batches_under_vmap(hand):
    poses = jnp.stack([random_pose(seed) for seed in range(3)])
    shapes = jnp.asarray(np.random.default_rng(4).normal(size=(3, 10)), jnp.float32)
    batch = jax.jit(jax.vmap(lambda pose, shape: posed(hand, pose, shape)))(poses, shapes)
    for i in range(3):
        alone = posed(hand, poses[i], shapes[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-6), batch, alone)
