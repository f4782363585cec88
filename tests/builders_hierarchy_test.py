import dataclasses

import numpy as np
import pytest

from m3dhmr_jax.builders import create_hierarchy, create_network
from m3dhmr_jax.errors import UserError
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


def test_create_hierarchy_builds_the_hands_by_default(hand, own):
    assert hierarchy_id(create_hierarchy("", hand, ModelConfig())) == hierarchy_id(own)


def test_create_hierarchy_reads_a_file_but_keeps_the_hands_regions(write, hand, own):
    found = create_hierarchy(write(), hand, ModelConfig(roi_length=9))
    np.testing.assert_allclose(found.levels[2].up_weights, own.levels[2].up_weights * 1.1)
    want = roi_spirals(hand.verts_m, hand.faces, hand.regions, 9, 2)
    np.testing.assert_array_equal(found.roi_spirals, want)
    assert create_hierarchy(write(), hand, ModelConfig(roi=False)).roi_spirals is None


def test_create_hierarchy_rejects_another_surface(write, hand):
    with pytest.raises(UserError, match=r"hierarchy.npz.* 389 .* 778"):
        create_hierarchy(write(first_level=1), hand, ModelConfig())


def test_create_hierarchy_rejects_another_spiral_length(write, hand):
    with pytest.raises(UserError, match=r"spiral_length=5.*\[9\]"):
        create_hierarchy(write(), hand, ModelConfig(spiral_length=5))


@pytest.mark.long
def test_network_compatibility_depends_on_the_hierarchy(write, hand, tiny_config):
    def compatibility(hierarchy):
        config = tiny_config(**{"model.hierarchy": hierarchy})
        return create_network(config, hand, abstract=True).compatibility

    own, other = compatibility(""), compatibility(write())
    assert own["hierarchy"] != other["hierarchy"]
    assert own | {"hierarchy": None} == other | {"hierarchy": None}


def test_hierarchy_id_depends_on_every_array(own):
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
