import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, pose_hand
from m3dhmr_jax.synthetic.kinematics import pose, random_rotation, rotation


@jax.jit
def jitted_pose_hand(rotations, shape):
    return pose_hand(load_builtin(), rotations, shape)


@pytest.mark.parametrize("seed", range(3))
def test_pose_matches_pose_hand(seed):
    rng = np.random.default_rng(seed)
    hand, shape = load_builtin(), rng.normal(size=10)
    rotations = np.stack([random_rotation(rng) for _ in range(16)])
    with jax.numpy_rank_promotion("allow"):
        want = jitted_pose_hand(jnp.asarray(rotations), jnp.asarray(shape))
    got = pose(hand, rotations, shape)
    np.testing.assert_allclose(got.verts_m, want.verts_m, atol=2e-6)
    np.testing.assert_allclose(got.skeleton_m, want.skeleton_m, atol=2e-6)


def test_rotation_about_z_takes_x_to_y():
    rotated = rotation(np.array([0.0, 0.0, 1.0]), np.pi / 2) @ np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(rotated, [0, 1, 0], atol=1e-12)


def test_random_rotation_is_uniform():
    rng = np.random.default_rng(0)
    rotations = np.stack([random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-9)
    np.testing.assert_allclose(rotations.mean(0), 0, atol=0.06)
