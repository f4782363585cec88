import numpy as np
import pytest

from m3dhmr_jax.synthetic.raster import FAR_M, depth_map, rasterise

K = np.array([[100.0, 0, 16], [0, 100, 16], [0, 0, 1]])
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
TOWARDS_CAMERA = np.array([[0, 2, 1], [0, 3, 2]], np.int32)


def square(depth_m, half_m=0.1):
    return SQUARE * np.float32(half_m) + np.array([0, 0, depth_m], np.float32)


def test_a_square_covers_its_projected_area_at_its_depth():
    found = rasterise(square(1.0), TOWARDS_CAMERA, K, 32, 2)
    covered = found.face >= 0
    assert covered.sum() == 40 * 40
    np.testing.assert_allclose(found.depth_m[covered], 1, rtol=1e-6)


def test_pixel_centres_are_whole_numbers():
    covered = rasterise(square(1.0), TOWARDS_CAMERA, K, 32, 1).face >= 0
    rows = np.flatnonzero(covered.any(1))
    # The square reaches from pixel 6 to 26; the centres on its border may fall to either side.
    assert (rows.min(), rows.max()) in {(6, 25), (7, 26), (6, 26), (7, 25)}


@pytest.mark.parametrize("near_first", [False, True])
def test_the_nearer_of_two_surfaces_is_seen(near_first):
    squares = [square(1.0), square(0.8, 0.02)]
    points = np.concatenate(squares[::-1] if near_first else squares)
    faces = np.concatenate([TOWARDS_CAMERA, TOWARDS_CAMERA + 4])
    found = rasterise(points, faces, K, 32, 2)
    np.testing.assert_allclose(found.depth_m[[32, 16], [32, 16]], [0.8, 1.0], rtol=1e-6)
    assert (found.face[32, 32] < 2) == near_first
    assert (found.face[16, 16] < 2) != near_first


def test_faces_turned_away_are_left_out():
    assert (rasterise(square(1.0), TOWARDS_CAMERA[:, ::-1].copy(), K, 32, 2).face == -1).all()


def test_weights_rebuild_the_point_behind_a_sample_on_a_slanted_face():
    points = square(1.0)
    points[:, 2] += points[:, 0] * 3
    found = rasterise(points, TOWARDS_CAMERA, K, 32, 2)
    y, x = 30, 22
    a, b = found.weights[y, x]
    place = np.array([a, b, 1 - a - b]) @ points[TOWARDS_CAMERA[found.face[y, x]]]
    pixel = (K @ place)[:2] / place[2]
    np.testing.assert_allclose(pixel, [(x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5], atol=1e-3)
    np.testing.assert_allclose(place[2], found.depth_m[y, x], rtol=1e-5)


def test_the_quick_depth_map_agrees_and_skips_what_is_too_near():
    depth = depth_map(square(1.0), TOWARDS_CAMERA, K, 32, 0.5)
    np.testing.assert_allclose(depth[depth < FAR_M], 1, rtol=1e-6)
    assert (depth < FAR_M).sum() == 100
    assert (depth_map(square(0.01), TOWARDS_CAMERA, K, 32, 0.5) == FAR_M).all()
