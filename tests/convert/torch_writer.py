"""Writes files as torch.save does, without PyTorch; torch.load 2.13 reads them back."""

import dataclasses
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C


@dataclasses.dataclass(frozen=True)
class Name:
    """Something that a pickle imports."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    function: Name
    arguments: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A reference to a storage outside of the pickle."""

    reference: tuple[Any, ...]


def save_zip(path: Path, value: Any, byte_order: str = "little") -> None:
    """The format since PyTorch 1.6, of nested dicts and lists of arrays."""
    arrays: list[np.ndarray] = []
    program = pickled(_described(value, arrays, ()))
    endian = {"little": "<", "big": ">"}[byte_order]
    write_zip(
        path,
        {
            "data.pkl": program,
            "byteorder": byte_order.encode(),
            **{f"data/{i}": _bytes(array, endian) for i, array in enumerate(arrays)},
            "version": b"3\n",
        },
    )


def write_zip(path: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"archive/{name}", content)


def save_legacy(path: Path, value: Any) -> None:
    """The format before PyTorch 1.6."""
    arrays: list[np.ndarray] = []
    described = _described(value, arrays, (None,))
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    heads = [MAGIC, 1001, system, described, [str(i) for i in range(len(arrays))]]
    rows = (struct.pack("<q", array.size) + _bytes(array, "<") for array in arrays)
    path.write_bytes(b"".join([*map(pickled, heads), *rows]))


def tensor(key: str, storage: str, count: Any, offset: Any, shape: Any, strides: Any) -> Call:
    """A tensor as it stands in a pickle of the newer format."""
    reference = Stored(("storage", Name("torch", storage), key, "cpu", count))
    hooks = Call(Name("collections", "OrderedDict"), ())
    return Call(
        Name("torch._utils", "_rebuild_tensor_v2"),
        (reference, offset, shape, strides, False, hooks),
    )


def pickled(value: Any) -> bytes:
    """A complete pickle, protocol 2."""
    return b"\x80\x02" + b"".join(_program(value)) + b"."


def _described(value: Any, arrays: list[np.ndarray], more: tuple[Any, ...]) -> Any:
    """`value` with tensors for its arrays, which are collected."""
    if isinstance(value, dict):
        return type(value)((k, _described(part, arrays, more)) for k, part in value.items())
    if isinstance(value, list):
        return [_described(part, arrays, more) for part in value]
    if not isinstance(value, np.ndarray):
        return value
    arrays.append(value)
    strides = tuple(int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim))
    call = tensor(str(len(arrays) - 1), STORAGES[value.dtype], value.size, 0, value.shape, strides)
    stored, *rest = call.arguments
    return Call(call.function, (Stored((*stored.reference, *more)), *rest))


def _bytes(array: np.ndarray, endian: str) -> bytes:
    words = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    return words.astype(words.dtype.newbyteorder(endian)).tobytes()


def _program(value: Any) -> Iterable[bytes]:
    match value:
        case None | True | False:
            yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int() if -(2**31) <= value < 2**31:
            yield b"J" + struct.pack("<i", value)
        case int():
            row = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            yield b"\x8a" + bytes([len(row)]) + row
        case float():
            yield b"G" + struct.pack(">d", value)
        case str():
            yield b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            yield from (b"(", *(_joined(part) for part in value), b"t")
        case list():
            yield from (b"](", *(_joined(part) for part in value), b"e")
        case dict():
            empty = b"ccollections\nOrderedDict\n)R" if isinstance(value, OrderedDict) else b"}"
            pairs = (_joined(key) + _joined(part) for key, part in value.items())
            yield from (empty, b"(", *pairs, b"u")
        case Name():
            yield f"c{value.module}\n{value.name}\n".encode()
        case Call():
            yield from (_joined(value.function), _joined(value.arguments), b"R")
        case Stored():
            yield _joined(value.reference) + b"Q"
        case _:
            raise TypeError(f"no way to pickle a {type(value).__name__}")


def _joined(value: Any) -> bytes:
    return b"".join(_program(value))
