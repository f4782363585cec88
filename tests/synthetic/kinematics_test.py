import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, pose_hand
from m3dhmr_jax.synthetic.kinematics import pose, random_rotation, rotation


@pytest.mark.parametrize("seed", range(3))
def test_posing_equals_the_hand_package(seed):
    rng = np.random.default_rng(seed)
    hand, shape = load_builtin(), rng.normal(size=10)
    rotations = np.stack([random_rotation(rng) for _ in range(16)])
    with jax.numpy_rank_promotion("allow"):
        want = pose_hand(hand, jnp.asarray(rotations), jnp.asarray(shape))
    got = pose(hand, rotations, shape)
    np.testing.assert_allclose(got.verts_m, want.verts_m, atol=2e-6)
    np.testing.assert_allclose(got.skeleton_m, want.skeleton_m, atol=2e-6)


def test_a_quarter_turn_about_z_takes_x_to_y():
    turned = rotation(np.array([0.0, 0.0, 1.0]), np.pi / 2) @ np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(turned, [0, 1, 0], atol=1e-12)


def test_random_rotations_are_proper_and_point_everywhere_alike():
    rng = np.random.default_rng(0)
    turns = np.stack([random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-9)
    np.testing.assert_allclose(turns.mean(0), 0, atol=0.06)
