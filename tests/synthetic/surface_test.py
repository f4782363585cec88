import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.synthetic.occluders import grid_faces, superquadric
from m3dhmr_jax.synthetic.surface import (
    build_surface,
    curved_midpoints,
    refine,
    split_edges,
    wrist_rim,
)
from m3dhmr_jax.visualize.raster import vertex_normals

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)


@pytest.fixture(scope="module")
def surface():
    return build_surface(load_builtin(), load_details())


def sides_of(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def volume(points, faces):
    a, b, c = points[faces].astype(np.float64).transpose(1, 0, 2)
    return np.einsum("fa,fa->", a, np.cross(b, c)) / 6


def test_surface_is_closed_and_consistently_oriented(surface):
    sides = {tuple(side) for side in sides_of(surface.faces).tolist()}
    assert len(sides) == 3 * len(surface.faces)
    assert all((b, a) in sides for a, b in sides)


def test_surface_faces_point_outwards(surface):
    assert volume(surface.rest_m, surface.faces) > 0


def test_surface_starts_with_hand_faces(surface):
    n_hand, arm = len(load_builtin().verts_m), surface.rest_m[:, 0]
    inside = surface.faces[: surface.n_hand_faces]
    assert surface.n_hand_faces == 4 * len(load_builtin().faces)
    assert set(range(n_hand)) <= set(inside.ravel().tolist())
    rim_x = load_builtin().verts_m[surface.rim, 0].max()
    assert arm[inside].max() <= rim_x + 1e-6


def test_refine_keeps_coarse_vertices(surface):
    n_coarse = surface.edges.max() + 1
    coarse = surface.rest_m[:n_coarse]
    np.testing.assert_array_equal(refine(coarse, surface)[:n_coarse], coarse)


def coarse_sphere():
    """An octahedron, subdivided once and projected onto the unit sphere."""
    points = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    top = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2]]
    faces = np.array(top + [[b, a, 5] for a, b, _ in top], np.int32)
    edges, faces = split_edges(faces, len(points))
    points = np.concatenate([points, points[edges].mean(1)])
    return points / np.linalg.norm(points, axis=1, keepdims=True), faces


def test_curved_midpoints_approach_sphere():
    points, faces = coarse_sphere()
    edges, _ = split_edges(faces, len(points))
    midpoints = curved_midpoints(points, vertex_normals(points, faces), edges)
    sunk = 1 - np.linalg.norm(points[edges].mean(1), axis=1)
    assert sunk.min() > 0.07
    assert (np.abs(np.linalg.norm(midpoints, axis=1) - 1) < 0.3 * sunk).all()


def test_wrist_rim_rejects_closed_surface():
    with pytest.raises(UserError, match="closed"):
        wrist_rim(TETRAHEDRON)


def test_wrist_rim_follows_open_boundary():
    assert sorted(wrist_rim(TETRAHEDRON[1:]).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("along", "around"), [(1.0, 1.0), (0.16, 0.16), (0.14, 1.0)])
def test_superquadric_has_its_size_and_outward_faces(along, around):
    half = np.array([0.02, 0.03, 0.05])
    points = superquadric(half, along, around)
    assert volume(points, grid_faces()) > 0.9 * 4 / 3 * np.pi * half.prod() * 0.95
    np.testing.assert_allclose(np.abs(points).max(0), half, rtol=0.02)
