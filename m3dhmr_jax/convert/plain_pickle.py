"""Reads pickles of plain data without ever running one.

A pickle is a program for a small stack machine, two of whose instructions import and call whatever
there is. This machine has none such: it knows numbers, strings and containers, and it calls only
functions that are handed to it by name.
"""

import dataclasses
import io
import pickletools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

MARK = object()


@dataclasses.dataclass(frozen=True)
class Named:
    """What a pickle called by its name, and what stands for it here."""

    name: str
    stands_for: Any


def load(
    stream: io.BytesIO,
    admitted: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle that starts at the stream's position; leaves the stream at its end.

    Args:
        admitted: what the pickle may name, as "module.name", and what stands for it; the functions
            among these it may call.
        persistent: answers its references to things outside of it.

    Raises:
        ValueError: if it is cut short or damaged, or names anything that is not admitted.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for instruction, argument in _instructions(stream):
            if instruction == "STOP":
                break
            _obey(instruction, argument, stack, memo, admitted, persistent)
        return stack.pop()
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"damaged pickle ({type(error).__name__}: {error})") from error


def _instructions(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
    except (ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"cut short or damaged ({error})") from error


def _obey(
    instruction: str,
    argument: Any,
    stack: list[Any],
    memo: dict[int, Any],
    admitted: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None,
) -> None:
    match instruction:
        case "PROTO" | "FRAME":
            pass
        case "NONE":
            stack.append(None)
        case "NEWTRUE" | "NEWFALSE":
            stack.append(instruction == "NEWTRUE")
        case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT":
            stack.append(argument)
        case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINSTRING" | "SHORT_BINSTRING":
            stack.append(argument)
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "EMPTY_TUPLE":
            stack.append(())
        case "MARK":
            stack.append(MARK)
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(instruction[-1])
            stack[-count:] = [tuple(stack[-count:])]
        case "APPEND":
            item = stack.pop()
            _append(stack[-1], [item])
        case "APPENDS":
            items = _since_mark(stack)
            _append(stack[-1], items)
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            fill(stack[-1], [(key, value)])
        case "SETITEMS":
            items = _since_mark(stack)
            fill(stack[-1], zip(items[::2], items[1::2], strict=True))
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "GLOBAL":
            stack.append(_named(argument.replace(" ", ".", 1), admitted))
        case "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_named(f"{module}.{name}", admitted))
        case "REDUCE" | "NEWOBJ":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        case "BUILD":
            stack.pop()  # Attributes of an admitted object; none has any that counts.
        case "BINPERSID" if persistent is not None:
            stack.append(persistent(stack.pop()))
        case _:
            raise ValueError(f"refused: the pickle uses {instruction}, which plain data never need")


def _named(name: str, admitted: Mapping[str, Any]) -> Named:
    if name not in admitted:
        raise ValueError(
            f"refused: it contains {name}, but only tensors, numbers, strings and plain "
            "containers are read; nothing in it was run"
        )
    return Named(name, admitted[name])


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Named) or not callable(function.stands_for):
        raise ValueError(f"refused: the pickle calls {function!r:.80}, which is no function")
    return function.stands_for(*arguments)


def _since_mark(stack: list[Any]) -> list[Any]:
    """Takes what lies above the last mark off the stack, and the mark."""
    items = []
    while (item := stack.pop()) is not MARK:
        items.append(item)
    return items[::-1]


def _append(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise ValueError("damaged pickle (it appends to something that is no list)")
    target.extend(items)


def fill(target: Any, pairs: Iterable[Any]) -> dict[Any, Any]:
    """Puts keys and values into a dictionary; raises ValueError if it is none or a key is odd."""
    if not isinstance(target, dict):
        raise ValueError("damaged pickle (it sets keys of something that is no dictionary)")
    for key, value in pairs:
        # A tuple as a key could be nested so that its hash takes for ever.
        if not isinstance(key, str | int | float | None):
            raise ValueError(f"damaged pickle (a key is a {type(key).__name__})")
        target[key] = value
    return target
