import numpy as np
import pytest

from m3dhmr_jax.data.synthetic.occluders import grid_faces, superquadric
from m3dhmr_jax.data.synthetic.surface import (
    build_surface,
    refine,
    split_edges,
    vertex_normals,
    wrist_rim,
)
from m3dhmr_jax.hand import load_builtin, load_details

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)


@pytest.fixture(scope="module")
def surface():
    return build_surface(load_builtin(), load_details())


def sides_of(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def volume(points, faces):
    a, b, c = points[faces].astype(np.float64).transpose(1, 0, 2)
    return np.einsum("fa,fa->", a, np.cross(b, c)) / 6


def test_hand_and_arm_are_one_closed_consistently_turned_surface(surface):
    sides = {tuple(side) for side in sides_of(surface.faces).tolist()}
    assert len(sides) == 3 * len(surface.faces)
    assert all((b, a) in sides for a, b in sides)


def test_faces_point_outwards(surface):
    assert volume(surface.rest_m, surface.faces) > 0


def test_the_hands_own_faces_come_first(surface):
    n_hand, arm = len(load_builtin().vertices), surface.rest_m[:, 0]
    inside = surface.faces[: surface.n_hand_faces]
    assert surface.n_hand_faces == 4 * len(load_builtin().faces)
    assert set(range(n_hand)) <= set(inside.ravel().tolist())
    rim_x = load_builtin().vertices[surface.rim, 0].max()
    assert arm[inside].max() <= rim_x + 1e-6


def test_labels_lie_on_the_drawn_surface(surface):
    n_coarse = surface.edges.max() + 1
    coarse = surface.rest_m[:n_coarse]
    np.testing.assert_array_equal(refine(coarse, surface)[:n_coarse], coarse)


def test_middles_of_a_coarse_sphere_are_lifted_towards_it():
    golden = (1 + 5**0.5) / 2
    points = np.array(
        [[s * a, t * b, 0] for s in (-1, 1) for t in (-1, 1) for a, b in [(1, golden)]]
    )
    points = np.concatenate([np.roll(points, k, axis=1) for k in range(3)])
    points = (points / np.linalg.norm(points[0])).astype(np.float32)
    hull = pytest.importorskip("scipy.spatial").ConvexHull(points).simplices
    turned = np.einsum("fa,fa->f", *_normal_and_centre(points, hull)) < 0
    hull[turned] = hull[turned][:, ::-1]
    edges, _ = split_edges(hull.astype(np.int32), len(points))
    from m3dhmr_jax.data.synthetic.surface import curved_middles

    normals = vertex_normals(points, hull.astype(np.int32))
    middles = curved_middles(points, normals, edges)[len(points) :]
    flat = np.linalg.norm(points[edges].mean(1), axis=1)
    assert flat.max() < 0.86
    assert np.abs(np.linalg.norm(middles, axis=1) - 1).max() < 0.04


def _normal_and_centre(points, faces):
    a, b, c = points[faces].transpose(1, 0, 2)
    return np.cross(b - a, c - a), (a + b + c) / 3


def test_a_closed_surface_has_no_wrist():
    with pytest.raises(ValueError, match="open wrist"):
        wrist_rim(TETRAHEDRON)


def test_the_rim_runs_along_the_open_edge():
    assert sorted(wrist_rim(TETRAHEDRON[1:]).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(("along", "around"), [(1.0, 1.0), (0.16, 0.16), (0.14, 1.0)])
def test_things_are_turned_outwards_and_have_their_size(along, around):
    half = np.array([0.02, 0.03, 0.05])
    points = superquadric(half, along, around)
    assert volume(points, grid_faces()) > 0.9 * 4 / 3 * np.pi * half.prod() * 0.95
    np.testing.assert_allclose(np.abs(points).max(0), half, rtol=0.02)
