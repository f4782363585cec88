import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from m3dhmr_jax.errors import UserError
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
        NUMBERS.transpose(2, 0, 1),
        NUMBERS[:, ::-1],
        NUMBERS.astype(">f4"),
        np.arange(5, dtype=np.uint32) * 10**9,
        np.array([True, False]),
        np.float64(2.5),
        np.int64(-3),
        np.zeros((0, 3)),
        7,
    ],
)
def test_read_arrays_takes_every_kind_and_protocol(tmp_path, array, protocol):
    got = read(dump(tmp_path / "p", {"a": array}, protocol))
    assert got.shape == np.shape(array)
    np.testing.assert_array_equal(got, array)


class Stored:
    """Pickled as NumPy pickles an array, by a call with given arguments."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return np._core.numeric._frombuffer, self.args


def test_read_arrays_takes_the_axes_of_numpy_2_3(tmp_path):
    content = {"a": Stored(NUMBERS.tobytes(), NUMBERS.dtype, NUMBERS.shape, "K", (2, 0, 1))}
    got = read(dump(tmp_path / "p", content, 5))
    np.testing.assert_array_equal(got, NUMBERS.transpose(2, 0, 1))


@pytest.mark.parametrize("axes", [(0, 0, 1), (0, 1), (0, 1, 3), None])
def test_read_arrays_rejects_axes_that_are_not_those_of_the_shape(tmp_path, axes):
    content = {"a": Stored(NUMBERS.tobytes(), NUMBERS.dtype, NUMBERS.shape, "K", axes)}
    with pytest.raises(UserError, match="'a' is not an array of numbers"):
        read(dump(tmp_path / "p", content, 5))


@pytest.mark.parametrize("protocol", [0, 2])
def test_read_arrays_takes_python_2(tmp_path, protocol):
    path = dump(tmp_path / "p", {"a": NUMBERS, "b": csc_matrix(SPARSE)}, protocol, python2=True)
    assert b"numpy.core" in path.read_bytes()
    np.testing.assert_array_equal(read(path), NUMBERS)
    np.testing.assert_array_equal(read(path, "b"), SPARSE)


@pytest.mark.parametrize("kind", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_read_arrays_makes_sparse_matrices_dense(tmp_path, kind):
    path = dump(tmp_path / "p", {"a": kind(SPARSE), "b": kind((3, 40))})
    np.testing.assert_array_equal(read(path), SPARSE)
    np.testing.assert_array_equal(read(path, "b"), np.zeros((3, 40)))


@pytest.mark.parametrize("python2", [False, True])
@pytest.mark.parametrize("protocol", [0, 2])
def test_read_arrays_takes_chumpy_objects_without_chumpy(tmp_path, protocol, python2):
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
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch ran",), r"(posix|nt)\.system"),
        (eval, ("open('ran', 'w')",), r"builtin(__|s)\.eval"),
        (subprocess.Popen, (["touch", "ran"],), r"(subprocess|commands)\.Popen"),
        (np.load, ("ran",), r"numpy.*\.load"),
        (np.frombuffer, (b"1",), r"numpy.*\.frombuffer"),
        (getattr, ("a", "upper"), r"\.getattr"),
        (bytearray, (10**12,), r"\.bytearray"),
    ],
)
@pytest.mark.parametrize("position", ["first", "last", "inside"])
def test_read_arrays_rejects_other_names_before_running_anything(
    tmp_path, monkeypatch, function, args, named, position, protocol
):
    monkeypatch.chdir(tmp_path)
    bad = Runs(function, *args)
    content = {
        "first": {"bad": bad, "a": NUMBERS},
        "last": {"a": NUMBERS, "bad": bad},
        "inside": {"a": Ch(x=[bad])},
    }[position]
    path = dump(tmp_path / "p", content, protocol)
    with pytest.raises(UserError, match=rf"{path}: .*{named}"):
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
def test_read_arrays_rejects_indirect_ways_to_other_names(tmp_path, program):
    (tmp_path / "p").write_bytes(program)
    with pytest.raises(UserError, match=r"p: "):
        read(tmp_path / "p")


def test_read_arrays_keeps_no_state_between_files(tmp_path):
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
        (state_of(b"I100000000000\n"), "'a'"),
        (state_of(b"C\x08" + bytes(8), shape=(10**9, 10**9)), "'a'"),
        (state_of(b"C\x08" + bytes(8), shape=(2**70,)), "'a'"),
        (state_of(b"]", dtype="O8"), "'a'"),
        (state_of(b"C\x10" + bytes(16), dtype="O8"), "'O8'"),
        (state_of(b"C\x10" + bytes(16), dtype="f8,O"), "'f8,O'"),
        (b"}Va\nr" + struct.pack("<I", 2**32 - 1) + b"VN\ns.", "'a'"),
        (b"}Va\nNp4294967295\ns.", "'a'"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", ""),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", ""),
        (b"}Va\nVtext\ns.", "str"),
        (b"}Va\n]s.", "list"),
        (b"]r\x00\x00\x00\x00.", "list"),
    ],
)
def test_read_arrays_rejects_memory_bombs_and_malformed_arrays(tmp_path, program, reason):
    (tmp_path / "p").write_bytes(program)
    tracemalloc.start()
    with pytest.raises(UserError, match=f"p: .*{reason}"):
        read(tmp_path / "p")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10 << 20


def test_read_arrays_rejects_objects_inside_themselves(tmp_path):
    inside = Ch()
    inside.x = inside
    with pytest.raises(UserError, match="'a'"):
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
def test_read_arrays_rejects_inconsistent_sparse_matrix(tmp_path, change):
    matrix = csc_matrix(SPARSE)
    matrix.__dict__ |= change
    with pytest.raises(UserError, match=r"'a'.* sparse"):
        read(dump(tmp_path / "p", {"a": matrix}))


def test_read_arrays_rejects_file_truncated_anywhere(tmp_path):
    path = dump(tmp_path / "p", {"a": NUMBERS, "b": Ch(x=NUMBERS)})
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="p: "):
            read(path)


def test_read_arrays_names_other_files(tmp_path):
    path = tmp_path / "p"
    with pytest.raises(UserError, match=r"p: .*a test's file"):
        read(path)
    path.write_bytes(b"\xff\xd8\xff\xe0 an image")
    with pytest.raises(UserError, match="p: "):
        read(path)
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match="p: 256 MB"):
        read(path)
    with pytest.raises(UserError, match=r"'b', 'c'.*a test's file"):
        read_arrays(dump(path, {"a": NUMBERS}), ["a", "b", "c"], "a test's file")
