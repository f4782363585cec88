import dataclasses
import gzip

import numpy as np
import pytest

from m3dhmr_jax.export.hand_tables import hand_tables, write_hand_tables
from m3dhmr_jax.hand import load_builtin

READ = """
    const loaded = await tables.loadTables(".");
    return Object.fromEntries(
      Object.entries(loaded).map(([name, { shape, data }]) => [name, { shape, data: [...data] }]));
"""


def test_the_page_reads_what_python_writes(modules):
    loaded, want = modules(["tables"], READ), hand_tables(load_builtin())
    assert loaded.keys() == want.keys()
    for name, array in want.items():
        assert tuple(loaded[name]["shape"]) == array.shape
        np.testing.assert_array_equal(loaded[name]["data"], array.ravel())


def test_a_missing_file_is_named(modules):
    body = 'return tables.loadTables("./nowhere").catch((error) => error.message);'
    assert "./nowhere/hand.json: 404" in modules(["tables"], body)


def test_files_are_small(tmp_path):
    write_hand_tables(load_builtin(), tmp_path)
    assert sum(len(gzip.compress(path.read_bytes())) for path in tmp_path.iterdir()) < 150_000


def test_indices_fit_their_types():
    hand, tables = load_builtin(), hand_tables(load_builtin())
    np.testing.assert_array_equal(tables["faces"], hand.faces)
    assert len(tables["ends"]) == len(tables["distance_m"]) > tables["groups"].max()


def test_pose_correctives_are_rejected():
    basis = np.zeros((135, 778, 3), np.float32)
    with pytest.raises(ValueError, match="pose_basis"):
        hand_tables(dataclasses.replace(load_builtin(), pose_basis=basis))
