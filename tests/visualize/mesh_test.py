import numpy as np
import pytest

from m3dhmr_jax.visualize.mesh import MeshRendering, render_mesh

CAMERA = np.array([[400.0, 0, 50], [0, 400, 40], [0, 0, 1]])
TRIANGLE = np.array([[0, 1, 2]])


def sphere(centre: list[float], radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of 24 x 48 quads, faces counter-clockwise seen from outside."""
    polar = np.linspace(0, np.pi, 25)[:, None]
    azimuth = np.linspace(0, 2 * np.pi, 48, endpoint=False)[None]
    ones = np.ones_like(azimuth)
    verts = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar) * ones], -1
    ).reshape(-1, 3)
    ring, column = (grid.ravel() for grid in np.mgrid[:24, :48])
    a, b = ring * 48 + column, ring * 48 + (column + 1) % 48
    faces = np.concatenate([np.stack([a, a + 48, b], 1), np.stack([b, a + 48, b + 48], 1)])
    return centre + radius * verts, faces


def full_size(rendering: MeshRendering, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour and coverage of the whole image."""
    colour, coverage = np.zeros((height, width, 3)), np.zeros((height, width))
    box_h, box_w = rendering.coverage.shape
    part = np.s_[rendering.top : rendering.top + box_h, rendering.left : rendering.left + box_w]
    colour[part], coverage[part] = rendering.colour, rendering.coverage
    return colour, coverage


def test_render_mesh_covers_projected_disc():
    verts, faces = sphere([0, 0, 1.0], 0.05)
    rendering = render_mesh(verts, faces, CAMERA, 101, 81)
    assert rendering.coverage.size < 0.4 * 101 * 81  # Only the box around the mesh.
    _, coverage = full_size(rendering, 101, 81)
    radius_px = 400 * 0.05 / np.sqrt(1 - 0.05**2)  # The silhouette is nearer than the centre.
    assert coverage.sum() == pytest.approx(np.pi * radius_px**2, rel=0.01)
    y, x = np.mgrid[:81, :101]
    assert (coverage * x).sum() / coverage.sum() == pytest.approx(50, abs=0.02)
    assert (coverage * y).sum() / coverage.sum() == pytest.approx(40, abs=0.02)
    assert ((coverage > 0) & (coverage < 1)).sum() > 40  # Antialiased.


def test_render_mesh_is_lit_from_upper_left():
    verts, faces = sphere([0, 0, 1.0], 0.05)
    light = full_size(render_mesh(verts, faces, CAMERA, 101, 81), 101, 81)[0].mean(-1)
    assert light[30, 40] > light[40, 50] > light[52, 60]


def test_render_mesh_darkens_back_faces():
    verts = np.array([[-0.05, -0.05, 1], [0.05, -0.05, 1], [0, 0.05, 1.0]])
    front, back = (
        full_size(render_mesh(verts, winding, CAMERA, 101, 81), 101, 81)[0][35, 50]
        for winding in (TRIANGLE[:, ::-1], TRIANGLE)
    )
    assert back.mean() < 0.6 * front.mean()


def test_mesh_rendering_over_blends_by_coverage():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    coverage = np.array([[0, 1], [0.5, 0]], np.float32)
    colour = np.full((2, 2, 3), 0.2, np.float32) * coverage[..., None]
    mixed = MeshRendering(colour, coverage, left=2, top=1).over(image)
    np.testing.assert_array_equal(mixed[1, 3], 51)
    np.testing.assert_allclose(mixed[2, 2], image[2, 2] / 2 + 25.5, atol=1)
    mixed[[1, 2], [3, 2]] = image[[1, 2], [3, 2]]
    np.testing.assert_array_equal(mixed, image)


def test_render_mesh_clips_at_border():
    verts, faces = sphere([0.12, 0.0, 1.0], 0.05)  # Its centre is on the right border.
    rendering = render_mesh(verts, faces, CAMERA, 101, 81)
    wider = render_mesh(verts, faces, CAMERA, 201, 81)
    np.testing.assert_array_equal(
        full_size(rendering, 101, 81)[1], full_size(wider, 201, 81)[1][:, :101]
    )


def test_render_mesh_outside_image_changes_nothing():
    verts, faces = sphere([1.0, 0.0, 1.0], 0.05)
    image = np.full((81, 101, 3), 7, np.uint8)
    drawn = render_mesh(verts, faces, CAMERA, 101, 81).over(image)
    np.testing.assert_array_equal(drawn, image)


def test_render_mesh_shows_nearer_mesh_in_any_order():
    near, faces = sphere([0.0, 0, 1.0], 0.05)
    far, _ = sphere([0.03, 0, 1.3], 0.05)
    colours = np.repeat([[1.0, 0.1, 0.1], [0.1, 0.1, 1.0]], len(faces), axis=0)
    for order in (1, -1):  # The order of the meshes is irrelevant.
        verts = np.concatenate([near, far][::order])
        both = np.concatenate([faces, faces + len(near)])
        rendering = render_mesh(verts, both, CAMERA, 101, 81, colours[::order])
        red, _, blue = full_size(rendering, 101, 81)[0].transpose(2, 0, 1)
        assert red[40, 60] > 2 * blue[40, 60]  # Inside both.
        assert blue[40, 73] > 2 * red[40, 73]  # Next to the near one.


def test_render_mesh_rejects_mesh_behind_camera():
    with pytest.raises(ValueError, match=r"-0\.1"):
        render_mesh(np.full((3, 3), -0.1), TRIANGLE, CAMERA, 10, 10)
