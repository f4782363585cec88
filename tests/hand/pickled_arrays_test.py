import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from m3dhmr_jax.hand.pickled_arrays import MAX_BYTES, read_arrays
from tests.hand.pickles import Ch, Reshape, Select, csc_matrix, dump, transpose

NUMBERS = np.arange(24.0).reshape(4, 3, 2)
SPARSE = np.array([[0, 2.5, 0], [1, 0, -3]])


def read(path, name="a"):
    return read_arrays(path, [name], "a test's file")[name]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        NUMBERS,
        np.asfortranarray(NUMBERS),
        NUMBERS.astype(">f4"),
        np.arange(5, dtype=np.uint32) * 10**9,
        np.array([True, False]),
        np.float64(2.5),
        np.int64(-3),
        np.zeros((0, 3)),
        7,
    ],
)
def test_arrays_of_every_kind_and_protocol_come_back(tmp_path, array, protocol):
    got = read(dump(tmp_path / "p", {"a": array}, protocol))
    assert got.shape == np.shape(array)
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("protocol", [0, 2])
def test_arrays_of_python_2_come_back(tmp_path, protocol):
    path = dump(tmp_path / "p", {"a": NUMBERS, "b": csc_matrix(SPARSE)}, protocol, python2=True)
    assert b"numpy.core" in path.read_bytes()
    np.testing.assert_array_equal(read(path), NUMBERS)
    np.testing.assert_array_equal(read(path, "b"), SPARSE)


@pytest.mark.parametrize("kind", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_sparse_matrices_are_written_out(tmp_path, kind):
    path = dump(tmp_path / "p", {"a": kind(SPARSE), "b": kind((3, 40))})
    np.testing.assert_array_equal(read(path), SPARSE)
    np.testing.assert_array_equal(read(path, "b"), np.zeros((3, 40)))


@pytest.mark.parametrize("python2", [False, True])
@pytest.mark.parametrize("protocol", [0, 2])
def test_chumpy_objects_are_read_without_chumpy(tmp_path, protocol, python2):
    x = Ch(x=NUMBERS)
    picked = np.arange(24).reshape(4, 3, 2)[:, 1:, 0]
    content = {
        "Ch": x,
        "Select": Select(a=x, idxs=picked.ravel(), preferred_shape=picked.shape),
        "flat": Select(a=Ch(x=x), idxs=np.array([5, 2])),
        "Reshape": Reshape(a=x, newshape=(-1, 2)),
        "transpose": transpose(a=x, axes=(2, 0, 1)),
    }
    path = dump(tmp_path / "p", content, protocol, python2)
    assert "chumpy" not in sys.modules
    np.testing.assert_array_equal(read(path, "Ch"), NUMBERS)
    np.testing.assert_array_equal(read(path, "Select"), NUMBERS[:, 1:, 0])
    np.testing.assert_array_equal(read(path, "flat"), [5, 2])
    np.testing.assert_array_equal(read(path, "Reshape"), NUMBERS.reshape(-1, 2))
    np.testing.assert_array_equal(read(path, "transpose"), NUMBERS.transpose(2, 0, 1))


class Runs:
    """Calls something when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch ran",), r"'system' of module '(posix|nt)'"),
        (eval, ("open('ran', 'w')",), "'eval' of module"),
        (subprocess.Popen, (["touch", "ran"],), "'Popen' of module '(subprocess|commands)'"),
        (np.load, ("ran",), "'load' of module 'numpy"),
        (np.frombuffer, (b"1",), "'frombuffer' of module 'numpy"),
        (getattr, ("a", "upper"), "'getattr' of module"),
        (bytearray, (10**12,), "'bytearray' of module"),
    ],
)
@pytest.mark.parametrize("place", ["first", "last", "inside"])
def test_whatever_is_no_array_is_refused_by_name_and_not_run(
    tmp_path, monkeypatch, function, args, named, place, protocol
):
    monkeypatch.chdir(tmp_path)
    bad = Runs(function, *args)
    content = {
        "first": {"bad": bad, "a": NUMBERS},
        "last": {"a": NUMBERS, "bad": bad},
        "inside": {"a": Ch(x=[bad])},
    }[place]
    path = dump(tmp_path / "p", content, protocol)
    with pytest.raises(ValueError, match=rf"{path}: refused, .*{named}.*a test's file"):
        read(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\nndarray\n}(Vkind\nVx\nub.",  # State for a class.
        b"cnumpy\nndarray\n(N}(Vkind\nVx\nutb.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
        b"\x82\x01.",  # An extension.
        b"Pname\n.",  # A persistent identity.
        b"(inumpy\nload\n.",
        b"(cnumpy\nload\no.",
    ],
)
def test_by_ways_nothing_is_reached(tmp_path, program):
    (tmp_path / "p").write_bytes(program)
    with pytest.raises(ValueError, match=r"p: (no pickle|refused)"):
        read(tmp_path / "p")


def test_a_file_changes_nothing_for_the_next(tmp_path):
    first = dump(tmp_path / "first", {"a": Ch(x=NUMBERS, kind="array", args=(), state=0)})
    for path in (first, dump(tmp_path / "second", {"a": Ch(x=NUMBERS)})):
        np.testing.assert_array_equal(read(path), NUMBERS)


def state_of(data, dtype="f8", shape=(2,)):
    """A pickle of an array whose content is what `data` puts on the stack."""
    dims = b"(" + b"".join(b"I%d\n" % n for n in shape) + b"t"
    kind = b"cnumpy\ndtype\n(V%s\nI0\nI1\ntR" % dtype.encode()
    return (
        b"}Va\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n"
        + dims + kind + b"I00\n" + data + b"tbs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (state_of(b"I100000000000\n"), "'a' is not an array of numbers .*content is a int"),
        (state_of(b"C\x08" + bytes(8), shape=(10**9, 10**9)), "'a' is not an array"),
        (state_of(b"C\x08" + bytes(8), shape=(2**70,)), "'a' is not an array"),
        (state_of(b"]", dtype="O8"), "'a' is not an array.*"),
        (state_of(b"C\x10" + bytes(16), dtype="O8"), "type 'O8', which is no number"),
        (state_of(b"C\x10" + bytes(16), dtype="f8,O"), "type 'f8,O', which is no number"),
        (b"}Va\nr" + struct.pack("<I", 2**32 - 1) + b"VN\ns.", "object number 4294967295"),
        (b"}Va\nNp4294967295\ns.", "object number 4294967295"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "no pickle, or cut short"),
        (b"}Va\nVtext\ns.", "it is a str"),
        (b"}Va\n]s.", "it is a list"),
        (b"]r\x00\x00\x00\x00.", "holds a list, not a dict"),
    ],
)
def test_what_asks_for_much_memory_or_is_malformed_is_refused(tmp_path, program, reason):
    (tmp_path / "p").write_bytes(program)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"p: .*{reason}"):
        read(tmp_path / "p")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10 << 20


def test_objects_inside_themselves_are_refused(tmp_path):
    inside = Ch()
    inside.x = inside
    with pytest.raises(ValueError, match="more than 8 objects inside each other"):
        read(dump(tmp_path / "p", {"a": inside}))


@pytest.mark.parametrize(
    "change",
    [
        {"_shape": (10**9, 3)},
        {"_shape": (1, 3)},
        {"_shape": (2, 4)},
        {"indices": np.array([1, -1, 1])},
        {"indptr": np.array([0, 5, 2, 3])},
        {"indptr": np.array([0, 10**12, 2, 3])},
        {"data": np.zeros(2)},
    ],
)
def test_a_sparse_matrix_whose_parts_disagree_is_refused(tmp_path, change):
    matrix = csc_matrix(SPARSE)
    matrix.__dict__ |= change
    with pytest.raises(ValueError, match=r"the parts of its sparse matrix .* disagree"):
        read(dump(tmp_path / "p", {"a": matrix}))


def test_a_cut_pickle_is_refused_wherever_it_is_cut(tmp_path):
    path = dump(tmp_path / "p", {"a": NUMBERS, "b": Ch(x=NUMBERS)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="p: no pickle, or cut short or damaged"):
            read(path)


def test_other_files_are_named(tmp_path):
    path = tmp_path / "p"
    with pytest.raises(FileNotFoundError, match="p: no such file; expected a test's file"):
        read(path)
    path.write_bytes(b"\xff\xd8\xff\xe0 a photo")
    with pytest.raises(ValueError, match="p: no pickle"):
        read(path)
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="256 MB, more than"):
        read(path)
    with pytest.raises(ValueError, match="has no 'b', 'c'; expected a test's file"):
        read_arrays(dump(path, {"a": NUMBERS}), ["a", "b", "c"], "a test's file")
