"""Arrays out of a pickle that is not trusted: nothing in the file is ever called.

A pickle is a program. Here it may only name what arrays are made of, and even these names stand for
inert records of what was asked for; the arrays are made afterwards, from the records. So neither
NumPy's own loading functions nor SciPy or chumpy, which old hand models need, take part.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 256 << 20  # Hand models have 4 MB; what is read exists several times for a moment.
MAX_DENSE = 1 << 24  # Numbers in a sparse matrix once it is written out.
MAX_DEPTH = 8  # Of objects inside objects.
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_NUMBERS = re.compile(r"[fiu][1248]|b1")


# What may be asked for, under its oldest name, and what kind of record that becomes.
_KINDS = {
    ("numpy", "ndarray"): "type",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy.core.numeric", "_frombuffer"): "buffer",
    ("scipy.sparse.csc", "csc_matrix"): "by column",
    ("scipy.sparse.csr", "csr_matrix"): "by row",
    ("chumpy.ch", "Ch"): "Ch",
    ("chumpy.reordering", "Select"): "Select",
    ("chumpy.reordering", "Reshape"): "Reshape",
    ("chumpy.reordering", "transpose"): "transpose",
    ("copyreg", "_reconstructor"): "object",
    ("_codecs", "encode"): "bytes",
    ("builtins", "bytes"): "bytes",
    ("builtins", "object"): "type",
    ("builtins", "set"): "set",  # Part of every chumpy object's state.
}
_OTHER_NAMES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "scipy.sparse._csr": "scipy.sparse.csr",
}


class _Record:
    """What the file says of one object: how it was to be made, and its state."""

    kind: str
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "_Record":
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Refused(ValueError):
    """The file asks for something that is no array."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Record]:
        kind = _KINDS.get((_OTHER_NAMES.get(module, module), name))
        if kind is None:
            raise _Refused(f"it asks for {name!r} of module {module!r}, which is no array")
        return type(name, (_Record,), {"kind": kind})


def read_arrays(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """The arrays `names` of a pickled dict; `what` says in errors what the file should be.

    Arrays may be NumPy's, SciPy's sparse matrices or chumpy objects, pickled by any Python.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no pickle, cut short or too large, asks for anything but arrays
            (nothing of it has run then), or lacks a name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {what}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path}: {path.stat().st_size >> 20} MB, more than the {MAX_BYTES >> 20} MB that are "
            f"read at most; expected {what}"
        )
    content = _load(path, what)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a dict; expected {what}")
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"{path}: has no {', '.join(map(repr, missing))}; expected {what}")
    arrays = {}
    for name in names:
        try:
            arrays[name] = _array(content[name])
        except Exception as error:  # As many kinds as there are ways to be malformed.
            raise ValueError(
                f"{path}: {name!r} is not an array of numbers ({error}); expected {what}"
            ) from error
    return arrays


def _load(path: Path, what: str) -> Any:
    data = path.read_bytes()
    try:
        _check_memo(data)
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _Refused as error:
        raise ValueError(
            f"{path}: refused, and nothing of it was run: {error}. Expected {what}"
        ) from error
    except Exception as error:  # The unpickler meets damage with any of a dozen kinds.
        raise ValueError(
            f"{path}: no pickle, or cut short or damaged ({error}); get it again. Expected {what}"
        ) from error


def _check_memo(data: bytes) -> None:
    """Refuses a note numbered beyond the file's length: the unpickler makes room up to its number.

    Also reads through the whole program once, so that what is cut short is found before it starts.
    """
    program = io.BytesIO(data)
    while (code := program.read(1)) != b".":
        opcode = _OPCODES.get(code.decode("latin1"))
        if opcode is None:
            raise ValueError(f"byte {program.tell()} is {code!r}")
        if opcode.name == "STRING":  # The reader of pickletools takes no bytes above 127.
            program.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(program)
            if "PUT" in opcode.name and argument > len(data):
                raise ValueError(f"object number {argument} in a file of {len(data)} bytes")


def _array(value: Any, depth: int = 0) -> np.ndarray:
    """The numbers of a record; raises one of many errors for what has none."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} objects inside each other")
    if isinstance(value, int | float):
        return np.asarray(value)
    if not isinstance(value, _Record):
        raise TypeError(f"it is a {type(value).__name__}")
    args, state = value.args, value.state

    def inner(name: str) -> np.ndarray:
        return _array(state[name], depth + 1)

    match args[0].kind if value.kind == "object" else value.kind:
        case "array":
            shape, dtype, by_column, data = state[-4:]
            return _stored(data, dtype, shape, "F" if by_column else "C")
        case "buffer":
            return _stored(*args)
        case "scalar":
            dtype, data = args
            return _stored(data, dtype, (), "C")
        case "by column":
            return _dense(state["_shape"][::-1], inner).T
        case "by row":
            return _dense(state["_shape"], inner)
        case "Ch":
            return inner("x")
        case "Select":
            chosen = inner("a").ravel()[inner("idxs")]
            return chosen.reshape(state.get("preferred_shape", chosen.shape))
        case "Reshape":
            return inner("a").reshape(state["newshape"])
        case "transpose":
            return inner("a").transpose(state.get("axes"))
    raise TypeError(f"it is a {type(value).__name__}")


def _stored(data: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """An array from its bytes; there are never more numbers than bytes in the file."""
    if isinstance(data, _Record) and data.kind == "bytes":
        data = data.args[0] if data.args else b""
    if isinstance(data, str):  # As Python 2 wrote bytes.
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError(f"its content is a {type(data).__name__}")
    return np.frombuffer(data, _dtype(dtype)).reshape(shape, order=order)


def _dtype(record: _Record) -> np.dtype:
    """A plain number type; NumPy's objects, texts and structures are refused."""
    code = record.args[0]
    if not _NUMBERS.fullmatch(code):
        raise ValueError(f"its entries have NumPy's type {code!r}, which is no number")
    order = record.state[1] if record.state else "<"
    return np.dtype(code).newbyteorder(order)


def _dense(shape: tuple[int, int], inner: Callable[[str], np.ndarray]) -> np.ndarray:
    """A compressed sparse matrix of `shape` (lines, places in each) written out."""
    n_lines, n_places = (int(n) for n in shape)
    values, places, starts = inner("data"), inner("indices"), inner("indptr")
    lengths = np.diff(starts)
    if n_lines * n_places > MAX_DENSE or not (
        len(starts) == n_lines + 1
        and len(values) == len(places) == starts[-1]
        and starts[0] == 0
        and (lengths >= 0).all()
        and ((places >= 0) & (places < n_places)).all()
    ):
        raise ValueError(f"the parts of its sparse matrix of {n_lines} x {n_places} disagree")
    dense = np.zeros((n_lines, n_places), values.dtype)
    np.add.at(dense, (np.repeat(np.arange(n_lines), lengths), places), values)
    return dense
