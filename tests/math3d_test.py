import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform

from m3dhmr_jax import math3d


@pytest.mark.parametrize("scale", [0, 1e-6, 1e-3, 0.00999, 0.01001, 1, 3.1])
def test_rotation_matrices_match_scipy(scale):
    vectors = scale * math3d.unit(np.random.default_rng(0).normal(size=(16, 3)))
    want = scipy.spatial.transform.Rotation.from_rotvec(vectors).as_matrix()
    got = math3d.rotation_matrices(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.009, 0.011])
def test_rotation_matrices_derivative_near_zero_is_the_generator(angle):
    start = jnp.array([[0.0, 0.0, angle]])
    jacobian = jax.jacfwd(math3d.rotation_matrices)(start)
    np.testing.assert_allclose(jacobian[0, 1, 0, 0, 2], np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(jacobian[0, 2, 1, 0, 0], 1, atol=1e-4)


def test_axis_rotation_matches_scipy():
    axis = math3d.unit(np.array([0.3, -0.5, 0.8]))
    angles = np.array([-2.0, 0.0, 0.4])
    want = scipy.spatial.transform.Rotation.from_rotvec(angles[:, None] * axis).as_matrix()
    np.testing.assert_allclose(math3d.axis_rotation(axis, angles), want, atol=1e-12)


def test_shortest_rotation_maps_one_direction_to_the_other():
    before, after = np.random.default_rng(1).normal(size=(2, 3))
    rotation = math3d.shortest_rotation(before, after)
    np.testing.assert_allclose(rotation @ math3d.unit(before), math3d.unit(after), atol=1e-12)
    angle = scipy.spatial.transform.Rotation.from_matrix(rotation).magnitude()
    np.testing.assert_allclose(np.cos(angle), math3d.unit(before) @ math3d.unit(after))


def test_random_rotation_is_proper_and_uniform():
    rng = np.random.default_rng(0)
    rotations = np.stack([math3d.random_rotation(rng) for _ in range(2000)])
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-9)
    np.testing.assert_allclose(rotations.mean(0), 0, atol=0.06)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_keeps_zero_and_dtype(dtype):
    units = math3d.unit(np.array([[0, 0, 0], [0, -3, 4]], dtype))
    np.testing.assert_allclose(units, [[0, 0, 0], [0, -0.6, 0.8]], rtol=1e-6)
    assert units.dtype == dtype


def test_safe_norms_have_finite_gradients_at_zero():
    zero = jnp.zeros(3)
    length = jax.grad(lambda v: math3d.safe_sqrt(jnp.sum(v**2)))(zero)
    direction = jax.jacrev(lambda v: math3d.safe_unit(v, 1e-4))(zero)
    np.testing.assert_array_equal(length, 0)
    assert jnp.isfinite(direction).all()


def test_safe_unit_fades_short_vectors():
    vectors = jnp.array([[0.0, 3e-4, 4e-4], [0.0, 3e-5, 4e-5]])
    want = [[0, 0.6, 0.8], [0, 0.3, 0.4]]
    np.testing.assert_allclose(math3d.safe_unit(vectors, 1e-4), want, rtol=1e-5)
