import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
from m3dhmr_jax.metrics.mean_shape import place_about_root, procrustes_mean

from m3dhmr_jax.metrics.freihand import aligned_and_centred


@pytest.fixture
def shapes():
    """Five meshes of 40 vertices, 0.7 m away."""
    centre = np.array([0.05, -0.02, 0.7])
    spread = 0.05 * np.random.default_rng(0).normal(size=(5, 40, 3))
    return (centre + spread).astype(np.float32)


def test_procrustes_mean_of_similar_meshes_is_their_shape(shapes):
    shape = shapes[0] - shapes[0].mean(0)
    rng = np.random.default_rng(2)
    turns = scipy.spatial.transform.Rotation.random(20, rng=rng).as_matrix()
    sizes = rng.uniform(0.5, 2, (20, 1, 1))
    copies = (sizes * (shape @ turns) + rng.normal(size=(20, 1, 3))).astype(np.float32)
    mean = procrustes_mean(copies)
    aligned, truth = aligned_and_centred(jnp.asarray(mean), jnp.asarray(shape))
    np.testing.assert_allclose(aligned, truth, atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(mean), sizes.mean() * np.linalg.norm(shape), rtol=1e-4
    )


def test_procrustes_mean_resembles_the_meshes_more_than_any_of_them(shapes):
    rng = np.random.default_rng(3)
    meshes = shapes[0] + 0.02 * rng.normal(size=(12, 40, 3)).astype(np.float32)
    meshes = meshes @ scipy.spatial.transform.Rotation.random(12, rng=rng).as_matrix()
    meshes = meshes.astype(np.float32)

    @jax.jit
    @jax.vmap
    def misfit(guess):
        aligned, truth = jax.vmap(aligned_and_centred, (None, 0))(guess, meshes)
        return jnp.sum((aligned - truth) ** 2)

    guesses = [procrustes_mean(meshes), meshes.mean(0), *meshes]
    misfits = misfit(np.stack(guesses))
    assert misfits[0] < 0.99 * misfits[1:].min()
    again = procrustes_mean(meshes[::-1])
    np.testing.assert_allclose(misfit(again[None])[0], misfits[0], rtol=1e-4)


def test_procrustes_mean_refuses_what_has_no_shape(shapes):
    shapes[2] = 0.5
    with pytest.raises(ValueError, match="mesh 2 has size"):
        procrustes_mean(shapes)
    with pytest.raises(ValueError, match="no mesh"):
        procrustes_mean(shapes[:0])


def test_placing_a_shape_restores_turn_and_size_but_never_mirrors(shapes):
    shape = shapes[0]
    root = shape[5]
    turn = scipy.spatial.transform.Rotation.from_rotvec([0.0, 1.1, 0.0]).as_matrix()
    want = (2.5 * (shape - root) @ turn).astype(np.float32)
    noise = 0.01 * np.random.default_rng(4).normal(size=(2, *want.shape)).astype(np.float32)
    noise -= noise.mean(0)
    np.testing.assert_allclose(place_about_root(shape, root, want + noise), want, atol=1e-5)
    mirrored = want * np.array([-1, 1, 1], np.float32)
    placed = place_about_root(shape, root, mirrored[None])
    assert np.linalg.det((shape - root).T @ placed) > 0
