import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.spirals import ordered_one_rings, roi_spirals, spirals


def hexagons(rows=9, columns=9):
    """A flat sheet of triangles, seen from +z; its inner vertices have six neighbours."""
    y, x = np.mgrid[:rows, :columns]
    vertices = np.stack([x + y / 2, y * np.sqrt(3) / 2, 0 * x], -1).reshape(-1, 3).astype(float)
    a = (y * columns + x)[:-1, :-1].ravel()
    faces = np.concatenate(
        [np.stack([a, a + 1, a + columns], 1), np.stack([a + 1, a + columns + 1, a + columns], 1)]
    )
    return vertices, faces.astype(np.int32)


def angle_steps(points):
    """Signed angles from each point to the next, around the origin, seen from +z."""
    angles = np.arctan2(points[:, 1], points[:, 0])
    return (np.diff(angles) + np.pi) % (2 * np.pi) - np.pi


def test_spirals_follow_the_rings_clockwise():
    vertices, faces = hexagons()
    centre = 40
    offsets = vertices[spirals(vertices, faces, 19)[centre]] - vertices[centre]
    radius = np.linalg.norm(offsets, axis=1)
    np.testing.assert_allclose(radius[:7], [0, *[1] * 6])
    assert (radius[7:] > 1.7).all()
    assert (radius[7:] < 2.01).all()
    np.testing.assert_allclose(angle_steps(offsets[1:7]), -np.pi / 3)
    np.testing.assert_allclose(angle_steps(offsets[7:]), -np.pi / 6)


def test_one_ring_of_a_border_vertex_runs_from_border_to_border():
    vertices, faces = hexagons()
    ring = ordered_one_rings(faces, len(vertices))[4]  # In the middle of the bottom row.
    assert ring == [3, 12, 13, 5]


def test_spirals_dilation_takes_every_dth():
    vertices, faces = hexagons()
    np.testing.assert_array_equal(
        spirals(vertices, faces, 5, dilation=3), spirals(vertices, faces, 15)[:, ::3]
    )


def test_spirals_of_builtin_hand_repeat_no_vertex():
    hand = load_builtin()
    table = spirals(hand.verts_m, hand.faces, 60)
    assert (table[:, 0] == np.arange(len(table))).all()
    assert all(len(set(row)) == 60 for row in table.tolist())


def test_spirals_of_a_small_component_take_the_nearest_vertices():
    vertices, faces = hexagons(3, 3)
    single = np.array([[5.0, 0, 0], [6, 0, 0], [5, 1, 0]])
    vertices = np.concatenate([vertices, single])
    faces = np.concatenate([faces, [[9, 10, 11]]])
    table = spirals(vertices, faces, 5)
    nearest = np.linalg.norm(vertices - vertices[9], axis=1).argsort()[:5]
    np.testing.assert_array_equal(table[9], nearest)
    np.testing.assert_array_equal(table[:9], spirals(vertices[:9], faces[:-1], 5))


def test_roi_spirals_stay_in_their_region():
    hand = load_builtin()
    table = roi_spirals(hand.verts_m, hand.faces, hand.regions, 27, 2)
    assert table.shape == (778, 27)
    assert (table[:, 0] == np.arange(778)).all()
    assert (hand.regions[table] == hand.regions[:, None]).all()
    assert all(len(set(row)) == 27 for row in table.tolist())


def test_roi_spirals_of_one_region_match_spirals():
    vertices, faces = hexagons()
    regions = np.zeros(len(vertices), int)
    np.testing.assert_array_equal(
        roi_spirals(vertices, faces, regions, 9, 2), spirals(vertices, faces, 9, 2)
    )


def test_roi_spirals_continue_in_the_regions_other_component():
    vertices, faces = hexagons(3, 7)
    columns = np.arange(21) % 7
    regions = np.where((columns < 2) | (columns > 4), 1, 0)
    row = roi_spirals(vertices, faces, regions, 9)[0]
    assert set(row[:6]) == set(np.flatnonzero(columns < 2))
    rest = np.flatnonzero(columns > 4)
    nearest = rest[np.linalg.norm(vertices[rest] - vertices[0], axis=1).argsort(kind="stable")]
    np.testing.assert_array_equal(row[6:], nearest[:3])


def test_roi_spirals_repeat_only_in_an_exhausted_region():
    vertices, faces = hexagons(3, 3)
    regions = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0])
    row = roi_spirals(vertices, faces, regions, 6, dilation=2)[0].tolist()
    assert set(row[:4]) == {0, 1, 3, 6}
    assert row[4:] == row[:2]


@pytest.mark.parametrize(("length", "dilation"), [(0, 1), (-1, 1), (9, 0)])
def test_spirals_reject_extent_below_one(length, dilation):
    vertices, faces = hexagons()
    with pytest.raises(UserError, match=f"length={length} and dilation={dilation}"):
        spirals(vertices, faces, length, dilation)
    with pytest.raises(UserError, match=f"length={length} and dilation={dilation}"):
        roi_spirals(vertices, faces, np.zeros(81, int), length, dilation)


def test_spirals_reject_length_beyond_the_surface():
    vertices, faces = hexagons(3, 3)
    with pytest.raises(UserError, match="length=5 times dilation=2"):
        spirals(vertices, faces, 5, 2)


@pytest.mark.parametrize(
    ("faces", "n_vertices", "named"),
    [
        ([[0, 1, 3]], 3, r"0\.\.3"),
        ([[0, 1, -1]], 3, r"-1\.\.1"),
        ([[0, 1, 1]], 2, r"face 0 is \[0, 1, 1\]"),
        ([[0, 1, 2], [0, 1, 3]], 4, "edge 0 -> 1"),
        ([[0, 1, 2], [0, 3, 4]], 5, "vertex 0"),
        ([[0, 1, 2]], 4, "vertex 3"),
    ],
)
def test_one_rings_reject_a_non_manifold(faces, n_vertices, named):
    with pytest.raises(UserError, match=named):
        ordered_one_rings(np.array(faces), n_vertices)


def test_one_rings_reject_two_closed_fans_at_a_vertex():
    tetrahedra = [[0, 1, 2], [0, 2, 3], [0, 3, 1], [0, 4, 5], [0, 5, 6], [0, 6, 4]]
    with pytest.raises(UserError, match="vertex 0"):
        ordered_one_rings(np.array(tetrahedra), 7)
