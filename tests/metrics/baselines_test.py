import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics.baselines import (
    constant_error_fn,
    fit_about_root,
    mean_hand,
    mean_landmark_error_fn,
    procrustes_mean,
)
from m3dhmr_jax.metrics.freihand import aligned_and_centred, scores


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


def relative(batch):
    return batch.verts_m - batch.joints_m[:, :1]


def rows(batch, chosen):
    return jax.tree.map(lambda leaf: leaf[chosen], batch)


def test_constant_error_fn_of_the_true_mesh_is_zero(hand_batch, hand):
    one = rows(hand_batch, slice(2, 3))
    result = scores(constant_error_fn(relative(one)[0], hand)(one))
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pa_mpvpe_mm"):
        assert result[name] < 0.01, name
    assert result["f_5"] == 1
    assert result["xyz_mean3d"] < 1e-5


def test_constant_error_fn_places_the_mesh_at_each_true_root(hand_batch, hand):
    """The first mesh for all four: right for the first, its own shape's errors for the others."""
    samples = constant_error_fn(relative(hand_batch)[0], hand)(hand_batch)
    off = np.linalg.norm(relative(hand_batch) - relative(hand_batch)[:1], axis=-1)
    np.testing.assert_allclose(samples.vert_errors_m, off, atol=1e-5)
    np.testing.assert_allclose(samples.joint_errors_rel_m, samples.joint_errors_m, atol=1e-5)


def test_mean_hand_of_rotated_copies_is_their_shape(hand_batch, hand):
    """Up to a similarity."""
    mean = mean_hand(hand_batch.verts_m, hand)
    result = scores(constant_error_fn(mean.astype(np.float32), hand)(hand_batch))
    assert result["pa_mpvpe_mm"] < 0.05
    np.testing.assert_allclose(hand.joint_regressor[0] @ mean, 0, atol=1e-5)


def test_mean_hand_is_a_better_baseline_than_its_neighbours(hand_batch, hand):
    """Best in least squares among rotated and scaled copies about the wrist."""
    mean = mean_hand(hand_batch.verts_m, hand)

    def cost(baseline):
        return np.sum((relative(hand_batch) - baseline) ** 2)

    rotation = np.array(
        [[np.cos(0.05), -np.sin(0.05), 0], [np.sin(0.05), np.cos(0.05), 0], [0, 0, 1]]
    )
    for other in (1.03 * mean, 0.97 * mean, mean @ rotation, mean @ rotation.T):
        assert cost(mean) < cost(other)


def test_mean_landmark_error_fn_measures_from_the_mean(hand_batch):
    """Two hands, one 8 px right of the other in the image: the mean is 4 px from both."""
    one = rows(hand_batch, slice(0, 1))
    moved = one.intrinsics + np.float32([[0, 0, 8], [0, 0, 0], [0, 0, 0]])
    joints_m, intrinsics = np.tile(one.joints_m, (2, 1, 1)), np.concatenate([one.intrinsics, moved])
    errors_px = mean_landmark_error_fn(joints_m, intrinsics)(one)
    np.testing.assert_allclose(errors_px, np.full((1, 21), 4.0), atol=1e-3)


@pytest.fixture
def shapes():
    """Five meshes of 40 vertices, 0.7 m away."""
    centre = np.array([0.05, -0.02, 0.7])
    spread = 0.05 * np.random.default_rng(0).normal(size=(5, 40, 3))
    return (centre + spread).astype(np.float32)


def test_procrustes_mean_of_similar_meshes_is_their_shape(shapes):
    shape = shapes[0] - shapes[0].mean(0)
    rng = np.random.default_rng(2)
    rotations = Rotation.random(20, rng=rng).as_matrix()
    sizes = rng.uniform(0.5, 2, (20, 1, 1))
    copies = (sizes * (shape @ rotations) + rng.normal(size=(20, 1, 3))).astype(np.float32)
    mean = procrustes_mean(copies)
    aligned, truth = aligned_and_centred(jnp.asarray(mean), jnp.asarray(shape))
    np.testing.assert_allclose(aligned, truth, atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(mean), sizes.mean() * np.linalg.norm(shape), rtol=1e-4
    )


def test_procrustes_mean_is_closest_to_the_meshes(shapes):
    rng = np.random.default_rng(3)
    meshes = shapes[0] + 0.02 * rng.normal(size=(12, 40, 3)).astype(np.float32)
    meshes = meshes @ Rotation.random(12, rng=rng).as_matrix()
    meshes = meshes.astype(np.float32)

    @jax.jit
    @jax.vmap
    def residual(mean):
        aligned, truth = jax.vmap(aligned_and_centred, (None, 0))(mean, meshes)
        return jnp.sum((aligned - truth) ** 2)

    candidates = [procrustes_mean(meshes), meshes.mean(0), *meshes]
    residuals = residual(np.stack(candidates))
    assert residuals[0] < 0.99 * residuals[1:].min()
    again = procrustes_mean(meshes[::-1])
    np.testing.assert_allclose(residual(again[None])[0], residuals[0], rtol=1e-4)


def test_procrustes_mean_rejects_meshes_without_extent(shapes):
    shapes[2] = 0.5
    with pytest.raises(ValueError, match="mesh 2"):
        procrustes_mean(shapes)
    with pytest.raises(ValueError, match="no meshes"):
        procrustes_mean(shapes[:0])


def test_fit_about_root_restores_rotation_and_size_but_never_mirrors(shapes):
    shape = shapes[0]
    root = shape[5]
    rotation = Rotation.from_rotvec([0.0, 1.1, 0.0]).as_matrix()
    want = (2.5 * (shape - root) @ rotation).astype(np.float32)
    noise = 0.01 * np.random.default_rng(4).normal(size=(2, *want.shape)).astype(np.float32)
    noise -= noise.mean(0)
    np.testing.assert_allclose(fit_about_root(shape, root, want + noise), want, atol=1e-5)
    mirrored = want * np.array([-1, 1, 1], np.float32)
    placed = fit_about_root(shape, root, mirrored[None])
    assert np.linalg.det((shape - root).T @ placed) > 0
