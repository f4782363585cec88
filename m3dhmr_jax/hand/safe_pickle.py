"""A restricted unpickler: plain data and inert records, nothing that a file names is ever called.

A pickle is a program for a stack machine that can import and call anything. Here it may only name
what is on an allow-list, and each name stands for one of our constructors. No real class is
imported or instantiated, and no state is set on anything but a `Record`.
"""

import dataclasses
import io
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from m3dhmr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Named:
    """Something that a pickle names, and what stands for it here."""

    name: str
    stands_for: Any


@dataclasses.dataclass(eq=False)
class Record:
    """A pickle's description of one object: its kind, constructor arguments and state."""

    kind: str
    args: tuple[Any, ...]
    state: Any = None


def load(
    stream: io.BytesIO,
    allowed: Mapping[str, Any],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle at the stream's position; leaves the stream at its end.

    Args:
        allowed: what the pickle may name, as "module.name", and what stands for it; the functions
            among these it may call.
        persistent_load: resolves references to things outside of the pickle.

    Raises:
        UserError: if it is truncated or corrupted, or names anything that is not allowed.
    """
    try:
        return _Unpickler(stream, allowed, persistent_load).load()
    except UserError:
        raise
    except Exception as error:  # Corruption raises any of a dozen kinds.
        raise UserError(
            f"not a pickle of plain data, truncated or corrupted ({type(error).__name__}: {error})"
        ) from error


def fill(target: Any, pairs: Iterable[Any]) -> dict[Any, Any]:
    """Puts keys and values into a dictionary; rejects other targets and keys that are not plain."""
    if not isinstance(target, dict):
        raise UserError(f"corrupted pickle (it sets keys of a {type(target).__name__})")
    for key, value in pairs:
        # Tuples could be nested so that hashing one takes forever.
        if not isinstance(key, str | int | float | None):
            raise UserError(f"corrupted pickle (a key is a {type(key).__name__})")
        target[key] = value
    return target


class _Unpickler(pickle._Unpickler):
    """The standard library's machine in Python, whose instructions can be replaced one by one."""

    # Attributes of the base class that type checkers do not know.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(
        self,
        stream: io.BytesIO,
        allowed: Mapping[str, Any],
        persistent_load: Callable[[Any], Any] | None,
    ):
        super().__init__(stream, encoding="latin1")  # For byte strings from Python 2.
        self._allowed = allowed
        self._resolve = persistent_load

    def persistent_load(self, pid: Any) -> Any:
        if self._resolve is None:
            raise UserError(f"rejected: the pickle refers to {pid!r:.80}, which is outside of it")
        return self._resolve(pid)

    def find_class(self, module: str, name: str) -> Named:
        full_name = f"{module}.{name}"
        if full_name not in self._allowed:
            raise UserError(
                f"rejected: it contains {full_name}, but only arrays, numbers, strings and plain "
                "containers are read; nothing in it was run"
            )
        return Named(full_name, self._allowed[full_name])

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Named) or not callable(function.stands_for):
            raise UserError(f"rejected: the pickle calls {function!r:.80}, which is not a function")
        self.append(function.stands_for(*arguments))

    def _set_state(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Record):  # State of anything else is dropped.
            self.stack[-1].state = state

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        fill(self.stack[-1], [(key, value)])

    def _set_items(self) -> None:
        items = self.pop_mark()
        fill(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append(fill({}, zip(items[::2], items[1::2], strict=True)))

    def _bytes_of_array(self) -> None:
        """Does not allocate a length that the file merely claims."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    # Sets become lists, so nothing in them is hashed. What is not here reaches outside: INST, OBJ,
    # EXT, PERSID, NEWOBJ_EX and buffers.
    dispatch = {
        opcode[0]: pickle._Unpickler.dispatch[opcode[0]]
        for opcode in (
            *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
            *(pickle.DUP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT),
            *(pickle.BININT1, pickle.BININT2, pickle.LONG, pickle.LONG1, pickle.LONG4),
            *(pickle.FLOAT, pickle.BINFLOAT, pickle.STRING, pickle.BINSTRING),
            *(pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8),
            *(pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8),
            *(pickle.TUPLE, pickle.EMPTY_TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
            *(pickle.LIST, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
            *(pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT),
            *(pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL, pickle.STACK_GLOBAL),
            pickle.BINPERSID,
        )
    } | {
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.BUILD[0]: _set_state,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.BYTEARRAY8[0]: _bytes_of_array,
        pickle.EMPTY_SET[0]: pickle._Unpickler.dispatch[pickle.EMPTY_LIST[0]],
        pickle.ADDITEMS[0]: pickle._Unpickler.dispatch[pickle.APPENDS[0]],
        pickle.FROZENSET[0]: pickle._Unpickler.dispatch[pickle.LIST[0]],
    }
