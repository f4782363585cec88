import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.hand.articulation import angle_rotations, joint_frames, load_pose_prior
from m3dhmr_jax.hand.capsules import build_contacts, finger_overlap, fit_capsules
from m3dhmr_jax.hand.posed_points import build_point_table, pose_points
from m3dhmr_jax.synthetic.poses import penetration_m

INDEX_ABDUCTION = 0


@pytest.fixture(scope="module")
def posed():
    table = build_point_table(load_builtin())

    @jax.jit
    def pose(angles):
        return pose_points(table, jnp.eye(3), jnp.asarray(angles, jnp.float32), jnp.zeros(10))

    return pose


@pytest.fixture(scope="module")
def contacts():
    return build_contacts(load_builtin())


def crossed(degrees):
    angles = np.zeros(45)
    angles[INDEX_ABDUCTION] = -np.radians(degrees)
    return angles


def test_nothing_overlaps_at_rest(posed, contacts):
    assert finger_overlap(contacts, posed(np.zeros(45)).points_m).depth_m.max() < 1e-5


def test_overlap_equals_the_samplers_penetration(posed, contacts):
    hand, capsules = load_builtin(), fit_capsules(load_builtin())
    frames, rng, prior = joint_frames(hand), np.random.default_rng(0), load_pose_prior()
    for _ in range(8):
        angles = rng.multivariate_normal(prior.mean_rad, prior.covariance_rad2)
        turns = np.asarray(angle_rotations(jnp.asarray(angles.reshape(15, 3), jnp.float32)))
        own = np.concatenate([np.eye(3)[None], frames.before @ turns @ frames.after])
        want = penetration_m(hand, capsules, own, np.zeros(10))
        got = float(finger_overlap(contacts, posed(angles).points_m).depth_m.max())
        assert got == pytest.approx(want, abs=1e-3)  # The tips are skinned here.


def test_overlap_derivative_matches_autodiff(posed, contacts):
    points = posed(crossed(25)).points_m
    overlap = finger_overlap(contacts, points)
    want = jax.jit(jax.jacrev(lambda p: finger_overlap(contacts, p).depth_m))(points)
    got = np.moveaxis(-overlap.direction[:, None] * overlap.weights[None], 2, 0)
    deep = np.asarray(overlap.depth_m) > 0.0035  # Fingers at rest overlap by 0 in several pairs.
    assert deep.any()
    np.testing.assert_allclose(got[deep], want[deep], atol=1e-4)
