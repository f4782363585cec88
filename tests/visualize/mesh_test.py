import numpy as np
import pytest

from m3dhmr_jax.visualize.mesh import MeshPicture, render_mesh, vertex_normals, visible_faces

CAMERA = np.array([[400.0, 0, 50], [0, 400, 40], [0, 0, 1]])
TRIANGLE = np.array([[0, 1, 2]])


def sphere(centre: list[float], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball of 24 x 48 patches, faces counter-clockwise seen from outside."""
    polar = np.linspace(0, np.pi, 25)[:, None]
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)[None]
    ones = np.ones_like(turn)
    verts = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar) * ones], -1
    ).reshape(-1, 3)
    ring, slot = (grid.ravel() for grid in np.mgrid[:24, :48])
    a, b = ring * 48 + slot, ring * 48 + (slot + 1) % 48
    faces = np.concatenate([np.stack([a, a + 48, b], 1), np.stack([b, a + 48, b + 48], 1)])
    return centre + radius * verts, faces


def nearest_by_hand(points_px, depth_m, faces, width, height) -> np.ndarray:
    """Asks every face at every pixel; -1 where there is none."""
    nearest, best = np.full((height, width), -1), np.zeros((height, width))
    y, x = np.mgrid[:height, :width]
    for number, face in enumerate(faces):
        corners = np.concatenate([points_px[face].T, np.ones((1, 3))])
        weights = np.einsum("kc,chw->khw", np.linalg.inv(corners), np.stack([x, y, 0 * x + 1]))
        nearness = np.einsum("k,khw->hw", 1 / depth_m[face], weights)
        wins = (weights >= 0).all(0) & (nearness > best)
        nearest[wins], best[wins] = number, nearness[wins]
    return nearest


def test_every_pixel_shows_the_nearest_face():
    rng = np.random.default_rng(0)
    points_px = rng.uniform(-10, 60, (60, 2))  # Some reach beyond the picture.
    depth_m, faces = rng.uniform(0.5, 2, 60), rng.permutation(60).reshape(20, 3)
    want = nearest_by_hand(points_px, depth_m, faces, 50, 40)
    pixel, face, weights = visible_faces(points_px, depth_m, faces, 50, 40)
    got = np.full(50 * 40, -1)
    got[pixel] = face
    np.testing.assert_array_equal(got.reshape(40, 50), want)
    assert len(np.unique(want)) > 8
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-4)
    at = np.einsum("qk,qkc->qc", weights, points_px[faces[face]])
    np.testing.assert_allclose(at, np.stack([pixel % 50, pixel // 50], 1), atol=1e-3)


def test_faces_on_edge_or_behind_the_camera_are_left_out():
    points_px = np.array([[5.0, 5], [10, 5], [15, 5], [5, 20]])
    faces = np.array([[0, 1, 2], [0, 1, 3]])
    pixel, _, _ = visible_faces(points_px, np.array([1.0, 1, 1, -1]), faces, 30, 30)
    assert len(pixel) == 0


def whole(picture: MeshPicture, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour and coverage of all pixels."""
    colour, coverage = np.zeros((height, width, 3)), np.zeros((height, width))
    box_h, box_w = picture.coverage.shape
    part = np.s_[picture.top : picture.top + box_h, picture.left : picture.left + box_w]
    colour[part], coverage[part] = picture.colour, picture.coverage
    return colour, coverage


def test_ball_covers_the_disc_that_geometry_says():
    verts, faces = sphere([0, 0, 1.0], 0.05)
    picture = render_mesh(verts, faces, CAMERA, 101, 81)
    assert picture.coverage.size < 0.4 * 101 * 81  # Only what lies around the mesh is drawn.
    _, coverage = whole(picture, 101, 81)
    radius_px = 400 * 0.05 / np.sqrt(1 - 0.05**2)  # The visible rim lies before the middle.
    assert coverage.sum() == pytest.approx(np.pi * radius_px**2, rel=0.01)
    y, x = np.mgrid[:81, :101]
    assert (coverage * x).sum() / coverage.sum() == pytest.approx(50, abs=0.02)
    assert (coverage * y).sum() / coverage.sum() == pytest.approx(40, abs=0.02)
    assert ((coverage > 0) & (coverage < 1)).sum() > 40  # A soft rim.


def test_light_falls_from_the_upper_left():
    verts, faces = sphere([0, 0, 1.0], 0.05)
    light = whole(render_mesh(verts, faces, CAMERA, 101, 81), 101, 81)[0].mean(-1)
    assert light[30, 40] > light[40, 50] > light[52, 60]


def test_normals_of_a_ball_point_outwards():
    verts, faces = sphere([0, 0, 0], 1.0)
    around = np.abs(verts[:, 2]) < 0.999  # The poles are many vertices in one place.
    np.testing.assert_allclose(vertex_normals(verts, faces)[around], verts[around], atol=0.025)


def test_open_side_shows_its_dark_inside():
    verts = np.array([[-0.05, -0.05, 1], [0.05, -0.05, 1], [0, 0.05, 1.0]])
    front, back = (
        whole(render_mesh(verts, turned, CAMERA, 101, 81), 101, 81)[0][35, 50]
        for turned in (TRIANGLE[:, ::-1], TRIANGLE)
    )
    assert back.mean() < 0.6 * front.mean()


def test_mesh_lies_over_another_picture_only_where_it_covers():
    below = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    coverage = np.array([[0, 1], [0.5, 0]], np.float32)
    colour = np.full((2, 2, 3), 0.2, np.float32) * coverage[..., None]
    mixed = MeshPicture(colour, coverage, left=2, top=1).over(below)
    np.testing.assert_array_equal(mixed[1, 3], 51)
    np.testing.assert_allclose(mixed[2, 2], below[2, 2] / 2 + 25.5, atol=1)
    mixed[[1, 2], [3, 2]] = below[[1, 2], [3, 2]]
    np.testing.assert_array_equal(mixed, below)


def test_a_mesh_half_outside_is_drawn_as_in_a_larger_picture():
    verts, faces = sphere([0.12, 0.0, 1.0], 0.05)  # Its middle lies on the right border.
    picture = render_mesh(verts, faces, CAMERA, 101, 81)
    wider = render_mesh(verts, faces, CAMERA, 201, 81)
    np.testing.assert_array_equal(whole(picture, 101, 81)[1], whole(wider, 201, 81)[1][:, :101])


def test_a_mesh_outside_the_picture_leaves_it_as_it_is():
    verts, faces = sphere([1.0, 0.0, 1.0], 0.05)
    below = np.full((81, 101, 3), 7, np.uint8)
    drawn = render_mesh(verts, faces, CAMERA, 101, 81).over(below)
    np.testing.assert_array_equal(drawn, below)


def test_faces_wear_their_colours_and_the_nearer_ball_hides_the_other():
    near, faces = sphere([0.0, 0, 1.0], 0.05)
    far, _ = sphere([0.03, 0, 1.3], 0.05)
    colours = np.repeat([[1.0, 0.1, 0.1], [0.1, 0.1, 1.0]], len(faces), axis=0)
    for order in (1, -1):  # Whichever comes first.
        verts = np.concatenate([near, far][::order])
        both = np.concatenate([faces, faces + len(near)])
        picture = render_mesh(verts, both, CAMERA, 101, 81, colours[::order])
        red, _, blue = whole(picture, 101, 81)[0].transpose(2, 0, 1)
        assert red[40, 60] > 2 * blue[40, 60]  # Inside both.
        assert blue[40, 73] > 2 * red[40, 73]  # Beside the near one.


def test_mesh_behind_the_camera_is_refused():
    with pytest.raises(ValueError, match="behind the camera"):
        render_mesh(np.full((3, 3), -0.1), TRIANGLE, CAMERA, 10, 10)
