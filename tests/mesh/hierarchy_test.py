import dataclasses

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import MeshTables, build_tables
from m3dhmr_jax.mesh.spirals import roi_spirals, spirals

SIZES = (778, 389, 195, 98, 49)


@pytest.fixture(scope="module")
def tables():
    return build_tables(load_builtin())


def test_levels_are_those_of_the_hand(tables):
    hand = load_builtin()
    assert tuple(level.n_vertices for level in tables.levels) == SIZES
    for level, step in zip(tables.levels, hand.levels, strict=False):
        np.testing.assert_array_equal(level.up_indices, step.up_indices)
        np.testing.assert_array_equal(level.up_weights, step.up_weights)
    for level, step in zip(tables.levels[1:], hand.levels, strict=True):
        np.testing.assert_array_equal(level.faces, step.faces)
    assert tables.levels[-1].up_indices is None
    assert tables.levels[-1].up_weights is None


def test_spirals_are_those_of_each_surface(tables):
    hand = load_builtin()
    vertices = hand.vertices[hand.levels[0].kept]
    np.testing.assert_array_equal(
        tables.levels[1].spirals, spirals(vertices, hand.levels[0].faces, 9)
    )
    np.testing.assert_array_equal(
        tables.roi_spirals, roi_spirals(hand.vertices, hand.faces, hand.regions, 27, 2)
    )


def test_arrays_are_as_narrow_as_the_device_wants_them(tables):
    for level in tables.levels[:-1]:
        dtypes = [a.dtype for a in (level.faces, level.spirals, level.up_indices, level.up_weights)]
        assert dtypes == [np.int32] * 3 + [np.float32]
    assert tables.roi_spirals.dtype == np.int32


def test_hand_without_levels_gets_them_made():
    hand = dataclasses.replace(load_builtin(), levels=())
    assert (
        tuple(level.n_vertices for level in build_tables(hand, level_count=3).levels) == SIZES[:3]
    )


def test_hand_with_some_levels_keeps_them_and_gets_the_others_made(tables):
    hand = dataclasses.replace(load_builtin(), levels=load_builtin().levels[:2])
    mixed = build_tables(hand, level_count=4)
    assert tuple(level.n_vertices for level in mixed.levels) == SIZES[:4]
    np.testing.assert_array_equal(mixed.levels[1].up_weights, tables.levels[1].up_weights)


def test_one_level_needs_no_upsampling():
    (only,) = build_tables(load_builtin(), level_count=1).levels
    assert only.up_indices is None


def test_no_level_at_all_is_refused():
    with pytest.raises(ValueError, match="level_count=0 must be at least 1"):
        build_tables(load_builtin(), level_count=0)


def test_weights_that_do_not_sum_to_one_are_accepted(tables):
    first = dataclasses.replace(tables.levels[0], up_weights=tables.levels[0].up_weights * 2)
    MeshTables((first, *tables.levels[1:]), tables.roi_spirals)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up_indices": np.full((778, 3), 389, np.int32)}, r"389\.\.389.*vertices 0\.\.388"),
        ({"up_indices": np.full((778, 3), -1, np.int32)}, r"-1\.\.-1"),
        ({"up_indices": None}, "level 0 has no up-sampling"),
    ],
)
def test_upsampling_that_misses_the_coarser_level_is_refused(tables, change, message):
    first = dataclasses.replace(tables.levels[0], **change)
    with pytest.raises(ValueError, match=message):
        MeshTables((first, *tables.levels[1:]), tables.roi_spirals)


def test_levels_out_of_order_are_refused(tables):
    with pytest.raises(ValueError, match="level 0"):
        MeshTables(tables.levels[::-1], tables.roi_spirals)
