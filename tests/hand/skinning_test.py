import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform

from m3dhmr_jax.hand import articulation, load_builtin, pose_hand, rotation_matrices

REST = np.zeros((16, 3), np.float32)
MEAN_SHAPE = jnp.zeros(10)


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


def posed(hand, pose, shape=MEAN_SHAPE):
    return pose_hand(hand, articulation(hand, jnp.asarray(pose)), shape)


def random_pose(seed, scale=0.4):
    return scale * np.random.default_rng(seed).normal(size=(16, 3)).astype(np.float32)


@pytest.mark.parametrize("scale", [0, 1e-6, 1e-3, 0.00999, 0.01001, 1, 3.1])
def test_rotations_match_scipy(scale):
    vectors = random_pose(0, 1).astype(np.float64)
    vectors *= scale / np.linalg.norm(vectors, axis=1, keepdims=True)
    want = scipy.spatial.transform.Rotation.from_rotvec(vectors).as_matrix()
    got = rotation_matrices(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.009, 0.011])
def test_slope_of_a_small_rotation_is_its_generator(angle):
    start = jnp.array([[0.0, 0.0, angle]])
    slope = jax.jacfwd(rotation_matrices)(start)[0, 1, 0, 0, 2]
    np.testing.assert_allclose(slope, np.cos(angle), atol=1e-5)
    about_x = jax.jacfwd(rotation_matrices)(start)[0, 2, 1, 0, 0]
    np.testing.assert_allclose(about_x, 1, atol=1e-4)


def test_zero_pose_is_the_rest_surface(hand):
    at_rest = posed(hand, REST)
    np.testing.assert_allclose(at_rest.verts_m, hand.verts_m, atol=1e-6)
    np.testing.assert_allclose(at_rest.skeleton_m, hand.rest_joints, atol=1e-6)


def test_global_turn_is_rigid_about_the_wrist(hand):
    pose = random_pose(1)
    pose[0] = 0
    before = posed(hand, pose)
    pose[0] = (0.7, -0.4, 1.1)
    after = posed(hand, pose)
    turn = np.asarray(rotation_matrices(jnp.asarray(pose[:1])))[0]
    wrist = hand.rest_joints[0]
    for name in ("verts_m", "skeleton_m", "joints_m"):
        want = (np.asarray(getattr(before, name)) - wrist) @ turn.T + wrist
        np.testing.assert_allclose(getattr(after, name), want, atol=2e-5, err_msg=name)


def test_a_bent_joint_moves_only_what_hangs_on_it(hand):
    pose = REST.copy()
    pose[5] = (0, 0, 0.8)  # The middle joint of the middle finger.
    moved = np.linalg.norm(posed(hand, pose).skeleton_m - hand.rest_joints, axis=1) > 1e-5
    assert np.flatnonzero(moved).tolist() == [6]
    still = hand.skin_weights[:, [5, 6]].sum(1) == 0
    np.testing.assert_allclose(
        np.asarray(posed(hand, pose).verts_m)[still], hand.verts_m[still], atol=1e-6
    )


def test_joints_follow_the_shape(hand):
    shape = jnp.asarray(np.random.default_rng(2).normal(size=10), jnp.float32)
    want = hand.rest_joints + np.einsum("p,pja->ja", shape, hand.joint_shape_basis)
    np.testing.assert_allclose(posed(hand, REST, shape).skeleton_m, want, atol=1e-6)
    assert np.abs(want - hand.rest_joints).max() > 1e-3


def test_gradient_is_finite_and_alive_at_zero_pose(hand):
    target = posed(hand, random_pose(3)).joints_m
    loss = jax.jit(jax.grad(lambda pose: jnp.abs(posed(hand, pose).joints_m - target).sum()))
    slope = loss(jnp.asarray(REST))
    assert jnp.isfinite(slope).all()
    assert (jnp.abs(slope).max(axis=1) > 0).all()


def test_batch_equals_one_by_one(hand):
    poses = jnp.stack([random_pose(seed) for seed in range(3)])
    shapes = jnp.asarray(np.random.default_rng(4).normal(size=(3, 10)), jnp.float32)
    batch = jax.jit(jax.vmap(lambda pose, shape: posed(hand, pose, shape)))(poses, shapes)
    for i in range(3):
        alone = posed(hand, poses[i], shapes[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-6), batch, alone)
