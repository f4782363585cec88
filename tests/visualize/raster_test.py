import numpy as np
import pytest

from m3dhmr_jax.visualize.raster import FAR_M, depth_map, rasterise, vertex_normals

K = np.array([[100.0, 0, 16], [0, 100, 16], [0, 0, 1]])
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
TOWARDS_CAMERA = np.array([[0, 2, 1], [0, 3, 2]], np.int32)


def square(depth_m, half_m=0.1):
    return SQUARE * np.float32(half_m) + np.array([0, 0, depth_m], np.float32)


def test_rasterise_covers_projected_area():
    fragments = rasterise(square(1.0), TOWARDS_CAMERA, K, 32, 32, 2)
    covered = fragments.face >= 0
    assert covered.sum() == 40 * 40
    np.testing.assert_allclose(fragments.depth_m[covered], 1, rtol=1e-6)


def test_rasterise_puts_pixel_centres_on_integers():
    covered = rasterise(square(1.0), TOWARDS_CAMERA, K, 32, 32, 1).face >= 0
    rows = np.flatnonzero(covered.any(1))
    # The square reaches from pixel 6 to 26; the centres on its border may fall to either side.
    assert (rows.min(), rows.max()) in {(6, 25), (7, 26), (6, 26), (7, 25)}


@pytest.mark.parametrize("near_first", [False, True])
def test_rasterise_shows_nearest_surface(near_first):
    squares = [square(1.0), square(0.8, 0.02)]
    points = np.concatenate(squares[::-1] if near_first else squares)
    faces = np.concatenate([TOWARDS_CAMERA, TOWARDS_CAMERA + 4])
    fragments = rasterise(points, faces, K, 32, 32, 2)
    np.testing.assert_allclose(fragments.depth_m[[32, 16], [32, 16]], [0.8, 1.0], rtol=1e-6)
    assert (fragments.face[32, 32] < 2) == near_first
    assert (fragments.face[16, 16] < 2) != near_first


@pytest.mark.parametrize("both_sides", [False, True])
def test_rasterise_culls_back_faces_on_request(both_sides):
    away = TOWARDS_CAMERA[:, ::-1]
    fragments = rasterise(square(1.0), away, K, 32, 32, 2, both_sides=both_sides)
    covered = fragments.face >= 0
    assert covered.sum() == (40 * 40 if both_sides else 0)
    np.testing.assert_allclose(fragments.depth_m[covered], 1, rtol=1e-6)


def test_rasterise_skips_faces_nearer_than_near_m():
    for near_m, count in ((0.04, 32 * 32), (0.06, 0)):
        fragments = rasterise(square(0.05), TOWARDS_CAMERA, K, 32, 32, 1, near_m=near_m)
        assert (fragments.face >= 0).sum() == count


def test_rasterise_weights_are_perspective_correct():
    points = square(1.0)
    points[:, 2] += points[:, 0] * 3
    fragments = rasterise(points, TOWARDS_CAMERA, K, 32, 32, 2)
    y, x = 30, 22
    a, b = fragments.weights[y, x]
    point = np.array([a, b, 1 - a - b]) @ points[TOWARDS_CAMERA[fragments.face[y, x]]]
    pixel = (K @ point)[:2] / point[2]
    np.testing.assert_allclose(pixel, [(x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5], atol=1e-3)
    np.testing.assert_allclose(point[2], fragments.depth_m[y, x], rtol=1e-5)


def test_depth_map_skips_near_faces():
    depth = depth_map(square(1.0), TOWARDS_CAMERA, K, 32, 0.5)
    np.testing.assert_allclose(depth[depth < FAR_M], 1, rtol=1e-6)
    assert (depth < FAR_M).sum() == 100
    assert (depth_map(square(0.01), TOWARDS_CAMERA, K, 32, 0.5) == FAR_M).all()


def nearest_by_brute_force(points_px, depth_m, faces, width, height) -> np.ndarray:
    """Evaluates every face at every pixel; -1 where there is none."""
    nearest, best = np.full((height, width), -1), np.zeros((height, width))
    y, x = np.mgrid[:height, :width]
    for number, face in enumerate(faces):
        corners = np.concatenate([points_px[face].T, np.ones((1, 3))])
        weights = np.einsum("kc,chw->khw", np.linalg.inv(corners), np.stack([x, y, 0 * x + 1]))
        nearness = np.einsum("k,khw->hw", 1 / depth_m[face], weights)
        wins = (weights >= 0).all(0) & (nearness > best)
        nearest[wins], best[wins] = number, nearness[wins]
    return nearest


def test_rasterise_matches_brute_force():
    rng = np.random.default_rng(0)
    points_px = rng.uniform(-10, 60, (60, 2))  # Some are outside the image.
    depth_m, faces = rng.uniform(0.5, 2, 60), rng.permutation(60).reshape(20, 3)
    want = nearest_by_brute_force(points_px, depth_m, faces, 50, 40)
    points = np.concatenate([points_px, np.ones((60, 1))], 1) * depth_m[:, None]
    got = rasterise(points, faces, np.eye(3), 50, 40, 1, both_sides=True).face
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(want)) > 8


def test_rasterise_skips_faces_seen_edge_on():
    points = np.array([[5.0, 5, 1], [10, 5, 1], [15, 5, 1]])
    fragments = rasterise(points, np.array([[0, 1, 2]]), np.eye(3), 30, 30, 1, both_sides=True)
    assert (fragments.face == -1).all()


def test_vertex_normals_of_tetrahedron_point_outwards():
    verts = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    np.testing.assert_allclose(vertex_normals(verts, faces), verts / np.sqrt(3), atol=1e-6)
