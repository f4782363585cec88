import dataclasses

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, build_hierarchy
from m3dhmr_jax.mesh.spirals import roi_spirals, spirals

SIZES = (778, 389, 195, 98, 49)


@pytest.fixture(scope="module")
def hierarchy():
    return build_hierarchy(load_builtin())


def sizes(hierarchy):
    return (*(level.n_vertices for level in hierarchy.levels), hierarchy.coarsest)


def test_levels_are_those_of_the_hand(hierarchy):
    hand = load_builtin()
    assert sizes(hierarchy) == SIZES
    for level, step in zip(hierarchy.levels, hand.levels, strict=True):
        np.testing.assert_array_equal(level.up_indices, step.up_indices)
        np.testing.assert_array_equal(level.up_weights, step.up_weights)


def test_spirals_are_those_of_each_surface(hierarchy):
    hand = load_builtin()
    vertices = hand.verts_m[hand.levels[0].kept]
    np.testing.assert_array_equal(
        hierarchy.levels[1].spirals, spirals(vertices, hand.levels[0].faces, 9)
    )
    np.testing.assert_array_equal(
        hierarchy.roi_spirals, roi_spirals(hand.verts_m, hand.faces, hand.regions, 27, 2)
    )


def test_arrays_are_as_narrow_as_the_device_wants_them(hierarchy):
    for level in hierarchy.levels:
        dtypes = [a.dtype for a in (level.spirals, level.up_indices, level.up_weights)]
        assert dtypes == [np.int32] * 2 + [np.float32]
    assert hierarchy.roi_spirals.dtype == np.int32


def test_hand_without_levels_gets_them_made():
    hand = dataclasses.replace(load_builtin(), levels=())
    assert sizes(build_hierarchy(hand, level_count=3)) == SIZES[:3]


def test_hand_with_some_levels_keeps_them_and_gets_the_others_made(hierarchy):
    hand = dataclasses.replace(load_builtin(), levels=load_builtin().levels[:2])
    mixed = build_hierarchy(hand, level_count=4)
    assert sizes(mixed) == SIZES[:4]
    np.testing.assert_array_equal(mixed.levels[1].up_weights, hierarchy.levels[1].up_weights)


def test_less_than_two_levels_are_refused():
    with pytest.raises(ValueError, match="level_count=1 must be at least 2"):
        build_hierarchy(load_builtin(), level_count=1)
    with pytest.raises(ValueError, match="there is no level"):
        MeshHierarchy((), 49, None)


def test_weights_that_do_not_sum_to_one_are_accepted(hierarchy):
    first = dataclasses.replace(hierarchy.levels[0], up_weights=hierarchy.levels[0].up_weights * 2)
    dataclasses.replace(hierarchy, levels=(first, *hierarchy.levels[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"up_indices": np.full((778, 3), 389, np.int32)},
            r"up_indices of level 0 .* 389\.\.389.*vertices 0\.\.388",
        ),
        ({"up_indices": np.full((778, 3), -1, np.int32)}, r"-1\.\.-1"),
        ({"up_indices": np.zeros((777, 3), np.int32)}, r"up_indices of shape \(777, 3\)"),
        ({"up_weights": np.zeros((389, 3), np.float32)}, r"up_weights of shape \(389, 3\)"),
        ({"up_weights": np.full((778, 3), np.nan, np.float32)}, "must be finite"),
        ({"spirals": np.full((778, 9), 778, np.int32)}, r"spirals of level 0 .* 778\.\.778"),
    ],
)
def test_a_level_that_does_not_fit_is_refused(hierarchy, change, message):
    first = dataclasses.replace(hierarchy.levels[0], **change)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hierarchy, levels=(first, *hierarchy.levels[1:]))


def test_spirals_of_regions_beyond_the_surface_are_refused(hierarchy):
    with pytest.raises(ValueError, match=r"the regions' spirals .* 778\.\.778"):
        dataclasses.replace(hierarchy, roi_spirals=np.full((778, 27), 778, np.int32))


def test_levels_out_of_order_are_refused(hierarchy):
    with pytest.raises(ValueError, match="up_indices of level 3"):
        dataclasses.replace(hierarchy, levels=hierarchy.levels[::-1])
