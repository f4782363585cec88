"""Pickles as old programs wrote them, without those programs."""

import contextlib
import pickle
import struct
import sys
import types

import numpy as np


class Ch:
    """Stands for chumpy's objects, whose whole state is their `__dict__`."""

    def __init__(self, **state):
        # What chumpy stores next to the numbers.
        self.__dict__ = {"_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}} | state


class Select(Ch): ...


class Reshape(Ch): ...


class transpose(Ch): ...


class csc_matrix(Ch):
    """Stands for SciPy's; filled from a dense matrix."""

    def __init__(self, dense):
        columns, rows = np.nonzero(dense.T)
        starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=dense.shape[1]))])
        super().__init__(
            _shape=dense.shape,
            maxprint=50,
            data=dense[rows, columns],
            indices=rows.astype(np.int32),
            indptr=starts.astype(np.int32),
        )


MODULES = {
    Ch: "chumpy.ch",
    Select: "chumpy.reordering",
    Reshape: "chumpy.reordering",
    transpose: "chumpy.reordering",
    csc_matrix: "scipy.sparse.csc",
}


@contextlib.contextmanager
def _modules():
    """Puts the classes where pickle looks for them while something is written."""
    before = {name: sys.modules.get(name) for name in ("chumpy", *MODULES.values())}
    own = {cls: cls.__module__ for cls in MODULES}
    for name in before:
        sys.modules[name] = types.ModuleType(name)
    for cls, name in MODULES.items():
        cls.__module__ = name
        setattr(sys.modules[name], cls.__name__, cls)
    try:
        yield
    finally:
        for cls, name in own.items():
            cls.__module__ = name
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Python2(pickle._Pickler):
    """Writes bytes as Python 2 did: as its text."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, content):
        if self.bin:
            self.write(b"T" + struct.pack("<i", len(content)) + content)
        else:
            self.write(b"S" + repr(content)[1:].encode() + b"\n")
        self.memoize(content)

    dispatch[bytes] = save_bytes


def dump(path, content, protocol=2, python2=False):
    """Writes a pickle; with `python2` as Python 2 and a NumPy of its time did."""
    with path.open("wb") as file, _modules():
        (_Python2 if python2 else pickle.Pickler)(file, protocol).dump(content)
    if python2:
        data = path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
        path.write_bytes(data)
    return path
