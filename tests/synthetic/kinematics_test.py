import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.math3d import random_rotation
from m3dhmr_jax.synthetic.kinematics import pose


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
