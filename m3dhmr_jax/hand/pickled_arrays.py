"""Arrays from pickles of NumPy, SciPy's sparse matrices and chumpy, without those libraries.

`safe_pickle` gives inert records of what the file asked for; arrays are built from these later.
So neither NumPy's own loading functions nor SciPy or chumpy, which old hand models need, take part.
"""

import functools
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand.safe_pickle import Named, Record, load

MAX_BYTES = 256 << 20  # Hand models have 4 MB; several copies exist for a moment.
MAX_DENSE = 1 << 24  # Numbers in a sparse matrix once it is written out.
MAX_DEPTH = 8  # Objects inside objects.
_NUMBERS = re.compile(r"[fiu][1248]|b1")


def _record(kind: str, *args: Any) -> Record:
    return Record(kind, args)


def _object(cls: Named, *_: Any) -> Record:
    """What `copyreg._reconstructor` stands for: an object whose state follows."""
    return cls.stands_for()


# Names that a pickle may use, and the kind of record that a call gives; types are never called.
_KINDS = {
    "numpy.dtype": "dtype",
    "numpy.core.multiarray._reconstruct": "array",
    "numpy.core.multiarray.scalar": "scalar",
    "numpy.core.numeric._frombuffer": "buffer",
    "scipy.sparse.csc.csc_matrix": "by column",
    "scipy.sparse.csr.csr_matrix": "by row",
    "chumpy.ch.Ch": "Ch",
    "chumpy.reordering.Select": "Select",
    "chumpy.reordering.Reshape": "Reshape",
    "chumpy.reordering.transpose": "transpose",
    "_codecs.encode": "bytes",
    "builtins.bytes": "bytes",
    "builtins.set": "set",  # Part of every chumpy object's state.
}
_OLDEST = {name: functools.partial(_record, kind) for name, kind in _KINDS.items()} | {
    "numpy.ndarray": None,
    "builtins.object": None,
    "copyreg._reconstructor": _object,
}
_ALIASES = {
    "builtins": "__builtin__",
    "copyreg": "copy_reg",
    "numpy.core": "numpy._core",
    "scipy.sparse.csc": "scipy.sparse._csc",
    "scipy.sparse.csr": "scipy.sparse._csr",
}
ALLOWED = _OLDEST | {
    alias + name.removeprefix(module): stands_for
    for module, alias in _ALIASES.items()
    for name, stands_for in _OLDEST.items()
    if name.startswith(f"{module}.")
}


def read_arrays(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """The arrays `names` of a pickled dict; `what` describes the expected file in errors.

    Arrays may be NumPy's, SciPy's sparse matrices or chumpy objects, pickled by any Python.

    Raises:
        UserError: if there is no such file, or it is not a pickle, truncated or too large, names
            anything but arrays (nothing of it has run then), or lacks one of `names`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected {what}")
    if path.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size >> 20} MB, more than the limit of {MAX_BYTES >> 20} MB; "
            f"expected {what}"
        )
    try:
        content = load(io.BytesIO(path.read_bytes()), ALLOWED)
    except UserError as error:
        raise UserError(f"{path}: {error}; expected {what}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a dict; expected {what}")
    missing = [name for name in names if name not in content]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(map(repr, missing))}; expected {what}")
    arrays = {}
    for name in names:
        try:
            arrays[name] = _array(content[name])
        except Exception as error:  # One of many kinds, by how it is malformed.
            raise UserError(
                f"{path}: {name!r} is not an array of numbers ({error}); expected {what}"
            ) from error
    return arrays


def _array(value: Any, depth: int = 0) -> np.ndarray:
    """The numbers of a record; raises one of many errors if it has none."""
    if depth > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} objects inside each other")
    if isinstance(value, int | float):
        return np.asarray(value)
    if not isinstance(value, Record):
        raise TypeError(f"it is a {type(value).__name__}")
    args, state = value.args, value.state

    def inner(name: str) -> np.ndarray:
        return _array(state[name], depth + 1)

    match value.kind:
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


def _stored(
    data: Any, dtype: Any, shape: tuple[int, ...], order: Any, axes: Sequence[int] | None = None
) -> np.ndarray:
    """An array from its bytes; there are never more numbers than bytes in the file.

    NumPy 2.3 and newer store an array with exchanged axes in the order of its memory: `order` is
    then "K", and `axes` turns the stored one into it.
    """
    if isinstance(data, Record) and data.kind == "bytes":
        data = data.args[0] if data.args else b""
    if isinstance(data, str):  # As Python 2 wrote bytes.
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError(f"its content is a {type(data).__name__}")
    numbers = np.frombuffer(data, _dtype(dtype))
    if axes is None:
        return numbers.reshape(shape, order=order)
    return numbers.reshape(shape).transpose(axes)


def _dtype(record: Record) -> np.dtype:
    """A plain number type; NumPy's objects, strings and structures are rejected."""
    code = record.args[0]
    if not _NUMBERS.fullmatch(code):
        raise ValueError(f"its entries have NumPy's type {code!r}, which is not a number")
    order = record.state[1] if record.state else "<"
    return np.dtype(code).newbyteorder(order)


def _dense(shape: tuple[int, int], inner: Callable[[str], np.ndarray]) -> np.ndarray:
    """A compressed sparse matrix of `shape` (lines, entries in each) written out."""
    n_lines, n_slots = (int(n) for n in shape)
    values, indices, starts = inner("data"), inner("indices"), inner("indptr")
    lengths = np.diff(starts)
    if n_lines * n_slots > MAX_DENSE or not (
        len(starts) == n_lines + 1
        and len(values) == len(indices) == starts[-1]
        and starts[0] == 0
        and (lengths >= 0).all()
        and ((indices >= 0) & (indices < n_slots)).all()
    ):
        raise ValueError(f"the parts of its sparse matrix of {n_lines} x {n_slots} disagree")
    dense = np.zeros((n_lines, n_slots), values.dtype)
    np.add.at(dense, (np.repeat(np.arange(n_lines), lengths), indices), values)
    return dense
