import pickle

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy


@pytest.fixture(scope="module")
def hierarchy():
    return build_hierarchy(load_builtin())


@pytest.fixture(scope="module")
def arrays(hierarchy):
    """What a user writes: the program's own hierarchy, in other number types, weights scaled."""
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


def test_tables_come_back_as_they_were_written(write, arrays, hierarchy):
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
    ("change", "message"),
    [
        (without("up_weights_2"), "lacks up_weights_2, which 4 levels must have"),
        (without("coarsest"), "lacks coarsest"),
        (having("faces_0", lambda x: x), "has faces_0, which hierarchy do not have"),
        (having("spirals_1", lambda x: x.astype(float)), "spirals_1 is float64 .* integers"),
        (having("up_weights_0", lambda x: x.astype(int)), "up_weights_0 is int64 .* floats"),
        (having("up_indices_3", lambda x: x.T), r"level 3 has up_indices of shape \(3, 98\)"),
        (having("up_indices_3", lambda x: x[0]), r"up_indices_3 is uint16 of shape \(3,\)"),
        (having("up_indices_3", lambda x: x + 1), r"level 3 name vertices 1\.\.49.*0\.\.48"),
        (having("spirals_0", lambda x: x - 1), r"spirals of level 0 name vertices -1\.\.776"),
        (having("up_weights_1", lambda x: x * np.nan), "up_weights of level 1 must be finite"),
        (having("coarsest", lambda x: x[None]), r"coarsest is int64 of shape \(1,\)"),
        (having("spirals_3", lambda x: x[:, :0]), r"spirals_3 is int64 of shape \(98, 0\)"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(write, arrays, change, message):
    path = write(change(arrays))
    with pytest.raises(ValueError, match=message) as refusal:
        load_hierarchy(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_objects_in_the_file_are_refused_unread(write, arrays):
    path = write(arrays | {"spirals_0": np.array([{"a": 1}], object)})
    with pytest.raises(ValueError, match=r"is no .* of plain arrays"):
        load_hierarchy(path)


@pytest.mark.parametrize(
    "content", [b"", b"no hierarchy", pickle.dumps({"a": 1}), b"PK\x03\x04cut"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "hierarchy.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"is no .* of plain arrays"):
        load_hierarchy(tmp_path / "hierarchy.npz")


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "hierarchy.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is no .* of plain arrays"):
        load_hierarchy(tmp_path / "hierarchy.npy")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent.* there is no such file"):
        load_hierarchy(tmp_path / "absent.npz")
