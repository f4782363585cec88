import dataclasses

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, build_hierarchy
from m3dhmr_jax.mesh.spirals import roi_spirals, spirals

SIZES = (778, 389, 195, 98, 49)


@pytest.fixture(scope="module")
def hierarchy():
    return build_hierarchy(load_builtin())


def sizes(hierarchy):
    return (*(level.n_vertices for level in hierarchy.levels), hierarchy.coarsest)


def test_build_hierarchy_takes_the_hands_levels(hierarchy):
    hand = load_builtin()
    assert sizes(hierarchy) == SIZES
    for level, step in zip(hierarchy.levels, hand.levels, strict=True):
        np.testing.assert_array_equal(level.up_indices, step.up_indices)
        np.testing.assert_array_equal(level.up_weights, step.up_weights)


def test_build_hierarchy_spirals_match_each_level(hierarchy):
    hand = load_builtin()
    vertices = hand.verts_m[hand.levels[0].kept]
    np.testing.assert_array_equal(
        hierarchy.levels[1].spirals, spirals(vertices, hand.levels[0].faces, 9)
    )
    np.testing.assert_array_equal(
        hierarchy.roi_spirals, roi_spirals(hand.verts_m, hand.faces, hand.regions, 27, 2)
    )


def test_build_hierarchy_dtypes(hierarchy):
    for level in hierarchy.levels:
        dtypes = [a.dtype for a in (level.spirals, level.up_indices, level.up_weights)]
        assert dtypes == [np.int32] * 2 + [np.float32]
    assert hierarchy.roi_spirals.dtype == np.int32


@pytest.mark.long
def test_build_hierarchy_coarsens_a_hand_without_levels():
    hand = dataclasses.replace(load_builtin(), levels=())
    assert sizes(build_hierarchy(hand, level_count=3)) == SIZES[:3]


@pytest.mark.long
def test_build_hierarchy_completes_missing_levels(hierarchy):
    hand = dataclasses.replace(load_builtin(), levels=load_builtin().levels[:2])
    mixed = build_hierarchy(hand, level_count=4)
    assert sizes(mixed) == SIZES[:4]
    np.testing.assert_array_equal(mixed.levels[1].up_weights, hierarchy.levels[1].up_weights)


def test_hierarchy_rejects_too_few_levels():
    with pytest.raises(ValueError, match="level_count=1"):
        build_hierarchy(load_builtin(), level_count=1)
    with pytest.raises(ValueError, match=r"levels=\(\)"):
        MeshHierarchy((), 49, None)


def test_build_hierarchy_rejects_spirals_longer_than_a_level():
    with pytest.raises(UserError, match="length=200"):
        build_hierarchy(load_builtin(), spiral_length=200)


def test_hierarchy_accepts_weights_that_do_not_sum_to_one(hierarchy):
    first = dataclasses.replace(hierarchy.levels[0], up_weights=hierarchy.levels[0].up_weights * 2)
    dataclasses.replace(hierarchy, levels=(first, *hierarchy.levels[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"up_indices": np.full((778, 3), 389, np.int32)},
            r"up_indices of level 0 .*389\.\.389",
        ),
        ({"up_indices": np.full((778, 3), -1, np.int32)}, r"-1\.\.-1"),
        ({"up_indices": np.zeros((777, 3), np.int32)}, r"up_indices of shape \(777, 3\)"),
        ({"up_weights": np.zeros((389, 3), np.float32)}, r"up_weights of shape \(389, 3\)"),
        ({"up_weights": np.full((778, 3), np.nan, np.float32)}, "up_weights of level 0"),
        ({"spirals": np.full((778, 9), 778, np.int32)}, r"spirals of level 0 .* 778\.\.778"),
    ],
)
def test_hierarchy_rejects_a_level_that_does_not_fit(hierarchy, change, message):
    first = dataclasses.replace(hierarchy.levels[0], **change)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hierarchy, levels=(first, *hierarchy.levels[1:]))


def test_hierarchy_rejects_roi_spirals_out_of_range(hierarchy):
    with pytest.raises(ValueError, match=r"regions' spirals .*778\.\.778"):
        dataclasses.replace(hierarchy, roi_spirals=np.full((778, 27), 778, np.int32))


def test_hierarchy_rejects_levels_out_of_order(hierarchy):
    with pytest.raises(ValueError, match="up_indices of level 3"):
        dataclasses.replace(hierarchy, levels=hierarchy.levels[::-1])
