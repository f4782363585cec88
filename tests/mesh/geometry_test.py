import numpy as np
import pytest
import scipy.optimize

from m3dhmr_jax.mesh.geometry import area_vectors, closest_barycentric, qualities

UNIT = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])


@pytest.mark.parametrize(
    ("point", "weights"),
    [
        ((0.25, 0.5, 3), (0.25, 0.25, 0.5)),  # Above the inside.
        ((-1, -2, 1), (1, 0, 0)),  # Beyond a corner.
        ((0.3, -2, 1), (0.7, 0.3, 0)),  # Beyond a side.
        ((2, 1.5, 0), (0, 0.75, 0.25)),  # Beyond the long side.
    ],
)
def test_closest_barycentric_by_region_of_the_triangle(point, weights):
    got = closest_barycentric(np.array(point, float), UNIT)
    np.testing.assert_allclose(got, [weights], atol=1e-12)


def test_closest_barycentric_matches_nnls():
    rng = np.random.default_rng(0)
    triangles, point = rng.normal(size=(40, 3, 3)), rng.normal(size=3)
    got = closest_barycentric(point, triangles)
    assert got.min() >= 0
    np.testing.assert_allclose(got.sum(1), 1)
    for triangle, weights in zip(triangles, got, strict=True):
        stiff = 1e4  # Holds the sum of the weights at 1.
        system = np.concatenate([triangle.T, np.full((1, 3), stiff)])
        want, _ = scipy.optimize.nnls(system, np.append(point, stiff))
        np.testing.assert_allclose(weights @ triangle, want @ triangle, atol=1e-6)


def test_closest_barycentric_of_a_collapsed_triangle():
    got = closest_barycentric(np.array([1.0, 2, 3]), np.ones((1, 3, 3)))
    np.testing.assert_allclose(got @ np.ones((3, 3)), [[1, 1, 1]])


def test_area_vectors_follow_the_right_hand_rule():
    np.testing.assert_allclose(area_vectors(UNIT), [[0, 0, 0.5]])
    np.testing.assert_allclose(area_vectors(UNIT[:, ::-1]), [[0, 0, -0.5]])


def test_qualities_of_equilateral_thin_and_collapsed_triangles():
    triangle = 7 * np.array([[[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(3) / 2, 0]]])
    np.testing.assert_allclose(qualities(triangle), 1)
    thin = np.array([[[0, 0, 0], [1, 0, 0], [0.5, 0.01, 0]]])
    assert qualities(thin) < 0.05
    assert qualities(np.ones((1, 3, 3))) == 0
