import pickle

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy


@pytest.fixture(scope="module")
def hierarchy():
    return build_hierarchy(load_builtin())


@pytest.fixture(scope="module")
def arrays(hierarchy):
    """What a user writes: the program's own hierarchy in other dtypes, weights scaled."""
    flat = {"coarsest": 49}
    for number, level in enumerate(hierarchy.levels):
        flat[f"spirals_{number}"] = level.spirals.astype(np.int64)
        flat[f"up_indices_{number}"] = level.up_indices.astype(np.uint16)
        flat[f"up_weights_{number}"] = 1.1 * level.up_weights.astype(np.float64)
    return flat


@pytest.fixture
def write(tmp_path):
    def write(arrays):
        np.savez(tmp_path / "hierarchy.npz", **arrays)
        return tmp_path / "hierarchy.npz"

    return write


def test_load_hierarchy_restores_arrays(write, arrays, hierarchy):
    found = load_hierarchy(write(arrays))
    assert found.coarsest == hierarchy.coarsest
    assert found.roi_spirals is None
    for got, want in zip(found.levels, hierarchy.levels, strict=True):
        np.testing.assert_array_equal(got.spirals, want.spirals)
        np.testing.assert_array_equal(got.up_indices, want.up_indices)
        np.testing.assert_allclose(got.up_weights, 1.1 * want.up_weights, rtol=1e-6)
        assert [a.dtype for a in (got.spirals, got.up_indices)] == [np.int32] * 2
        assert got.up_weights.dtype == np.float32


def without(key):
    return lambda arrays: {name: array for name, array in arrays.items() if name != key}


def having(key, change):
    return lambda arrays: arrays | {key: change(np.array(arrays.get(key, 0)))}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("up_weights_2"), "up_weights_2"),
        (without("coarsest"), "coarsest"),
        (having("faces_0", lambda x: x), "faces_0"),
        (having("spirals_1", lambda x: x.astype(float)), "spirals_1 is float64"),
        (having("up_weights_0", lambda x: x.astype(int)), "up_weights_0 is int64"),
        (having("up_indices_3", lambda x: x.T), r"up_indices .*\(3, 98\)"),
        (having("up_indices_3", lambda x: x[0]), r"up_indices_3 .*\(3,\)"),
        (having("up_indices_3", lambda x: x + 1), r"up_indices of level 3 .*1\.\.49"),
        (having("spirals_0", lambda x: x - 1), r"spirals of level 0 .*-1\.\.776"),
        (having("up_weights_1", lambda x: x * np.nan), "up_weights of level 1"),
        (having("coarsest", lambda x: x[None]), r"coarsest .*\(1,\)"),
        (having("spirals_3", lambda x: x[:, :0]), r"spirals_3 .*\(98, 0\)"),
    ],
)
def test_load_hierarchy_names_a_bad_array(write, arrays, change, named):
    with pytest.raises(UserError, match=rf"hierarchy\.npz: .*{named}"):
        load_hierarchy(write(change(arrays)))


def test_load_hierarchy_rejects_pickled_objects(write, arrays):
    with pytest.raises(UserError, match=r"hierarchy\.npz"):
        load_hierarchy(write(arrays | {"spirals_0": np.array([{"a": 1}], object)}))


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": 1}), b"PK\x03\x04truncated"])
def test_load_hierarchy_rejects_other_files(tmp_path, content):
    (tmp_path / "hierarchy.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"hierarchy\.npz"):
        load_hierarchy(tmp_path / "hierarchy.npz")


def test_load_hierarchy_rejects_a_single_array(tmp_path):
    np.save(tmp_path / "hierarchy.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"hierarchy\.npy"):
        load_hierarchy(tmp_path / "hierarchy.npy")


def test_load_hierarchy_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.npz"):
        load_hierarchy(tmp_path / "absent.npz")
