import dataclasses

import jax
import numpy as np
import pytest

from m3dhmr_jax.builders import create_hierarchy, create_network
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy, hierarchy_id
from m3dhmr_jax.mesh.spirals import roi_spirals
from m3dhmr_jax.models.network import ModelConfig


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


@pytest.fixture(scope="module")
def own(hand):
    return build_hierarchy(hand)


@pytest.fixture
def write(tmp_path, own):
    """A file of the hand's hierarchy with weights of 1.1 instead of 1, from a level on."""

    def write(first_level=0):
        arrays = {"coarsest": own.coarsest}
        for i, level in enumerate(own.levels[first_level:]):
            arrays[f"spirals_{i}"] = level.spirals
            arrays[f"up_indices_{i}"] = level.up_indices
            arrays[f"up_weights_{i}"] = level.up_weights * 1.1
        np.savez(tmp_path / "hierarchy.npz", **arrays)
        return str(tmp_path / "hierarchy.npz")

    return write


def test_without_a_file_the_tables_are_the_hands(hand, own):
    assert hierarchy_id(create_hierarchy("", hand, ModelConfig())) == hierarchy_id(own)


def test_a_files_tables_are_used_and_regions_are_the_hands(write, hand, own):
    found = create_hierarchy(write(), hand, ModelConfig(roi_length=9))
    np.testing.assert_allclose(found.levels[2].up_weights, own.levels[2].up_weights * 1.1)
    want = roi_spirals(hand.verts_m, hand.faces, hand.regions, 9, 2)
    np.testing.assert_array_equal(found.roi_spirals, want)
    assert create_hierarchy(write(), hand, ModelConfig(roi=False)).roi_spirals is None


def test_tables_of_another_surface_are_refused(write, hand):
    with pytest.raises(ValueError, match="finest level has 389 vertices, but the hand has 778"):
        create_hierarchy(write(first_level=1), hand, ModelConfig())


def test_spirals_of_another_length_are_refused(write, hand):
    with pytest.raises(ValueError, match=r"spiral_length=5, but .* of length \[9\]"):
        create_hierarchy(write(), hand, ModelConfig(spiral_length=5))


def test_checkpoints_know_their_tables(write, hand, tiny_config):
    def compatibility(hierarchy):
        kept = []
        jax.eval_shape(
            lambda: kept.append(create_network(tiny_config(**{"model.hierarchy": hierarchy}), hand))
        )
        return kept[0].compatibility

    own, other = compatibility(""), compatibility(write())
    assert own["hierarchy"] != other["hierarchy"]
    assert own | {"hierarchy": None} == other | {"hierarchy": None}


def test_the_name_of_tables_sees_every_array(own):
    first, *rest = own.levels
    others = [
        dataclasses.replace(own, coarsest=own.coarsest + 1),
        dataclasses.replace(own, roi_spirals=None),
        dataclasses.replace(own, roi_spirals=own.roi_spirals[:, ::-1]),
        *(
            dataclasses.replace(
                own,
                levels=(dataclasses.replace(first, **{k: np.flip(getattr(first, k), 1)}), *rest),
            )
            for k in ("spirals", "up_indices", "up_weights")
        ),
    ]
    assert len({hierarchy_id(each) for each in (own, *others)}) == 1 + len(others)
