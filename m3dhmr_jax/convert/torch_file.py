"""Reads the tensors of files that torch.save or safetensors wrote, without PyTorch.

Nothing of a file is ever run and nothing is unpacked: arrays are read-only views of the file, which
is mapped into memory, and none can hold more numbers than the file has for it.
"""

import functools
import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from m3dhmr_jax.convert import plain_pickle, tensors
from m3dhmr_jax.convert.tensors import Storage, Tensor

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
AGAIN = "it is damaged or was cut short on its way; download it again"


class TorchFile(NamedTuple):
    """What a file holds, named by the keys that lead there, joined by dots."""

    arrays: dict[str, np.ndarray]
    others: dict[str, str]  # Numbers, strings and the like, as text.


def read(path: str | Path) -> TorchFile:
    """The tensors of a .pth, .pt or .safetensors file; its bytes tell which of these it is.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is none of these, damaged or cut short, or contains anything but tensors,
            numbers, strings and plain containers.
    """
    with Path(path).open("rb") as file:
        start = file.read(len(LEGACY_START))
        try:
            if start.startswith(ZIP_START):
                return _read_zip(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if start == LEGACY_START:
                return _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if start[8:9] == b"{":  # Behind the length of this header.
                return _read_safetensors(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    raise ValueError(
        f"{path}: starts with the bytes {start!r}, so it is neither a file of torch.save (since "
        "PyTorch 0.1.10) nor a safetensors file"
    )


def _read_safetensors(path: str | Path) -> TorchFile:
    try:
        return TorchFile(safetensors.numpy.load_file(path), {})
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{AGAIN} ({error})") from error


def _read_zip(content: mmap.mmap) -> TorchFile:
    """The format since PyTorch 1.6: an uncompressed zip archive of a pickle and its storages."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise ValueError(f"{AGAIN} ({error})") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    root = next((name[:-8] for name in entries if name.endswith("/data.pkl")), None)
    if root is None:
        raise ValueError("a zip archive, but not one of torch.save: it has no data.pkl")
    if f"{root}constants.pkl" in entries:
        raise ValueError("refused: a program of torch.jit.save, not the state_dict() of a model")

    @functools.cache
    def part(name: str) -> memoryview:
        if root + name not in entries:
            raise ValueError(f"its part {name} is missing: {AGAIN}")
        return _stored(content, entries[root + name])

    order = "little"  # Only files since PyTorch 2.1 say it.
    if f"{root}byteorder" in entries:
        order = bytes(part("byteorder")).decode(errors="replace")
    if order not in ("little", "big"):
        raise ValueError(f"its byte order is {order!r:.40}, neither 'little' nor 'big'")
    value = plain_pickle.load(io.BytesIO(part("data.pkl")), tensors.ADMITTED, tensors.storage)
    return _collect(value, lambda storage: part(f"data/{storage.key}"), order)


def _stored(content: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry, where they lie in the archive."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(
            f"refused: its part {entry.filename} is compressed or encrypted, "
            "which torch.save never does"
        )
    # First comes a header: 30 bytes, the last of which tell how long two strings behind it are.
    header = content[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or not header.startswith(ZIP_START):
        raise ValueError(f"its part {entry.filename} is not in its place: {AGAIN}")
    first = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    found = memoryview(content)[first : first + entry.file_size]
    if len(found) != entry.file_size or zlib.crc32(found) != entry.CRC:
        raise ValueError(f"its part {entry.filename} has not the bytes that were written: {AGAIN}")
    return found


def _read_legacy(content: mmap.mmap) -> TorchFile:
    """The format before PyTorch 1.6: pickles one after the other, then the storages."""
    stream = io.BytesIO(content)
    for _ in range(3):  # The magic number, a version that never changed, the sizes of C's types.
        plain_pickle.load(stream, {})
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        found = tensors.storage(reference)
        return storages.setdefault(found.key, found)

    value = plain_pickle.load(stream, tensors.ADMITTED, storage)
    bytes_of = {}
    for key in plain_pickle.load(stream, {}):
        if key not in storages:
            raise ValueError(f"no tensor is in its storage {key!r:.40}: {AGAIN}")
        size = storages[key].count * storages[key].dtype.itemsize
        first = stream.tell() + 8  # Behind the count of its numbers.
        if first + size > len(content):
            raise ValueError(f"it ends after {len(content)} bytes, inside of a tensor: {AGAIN}")
        bytes_of[key] = memoryview(content)[first : first + size]
        stream.seek(first + size)
    if bytes_of.keys() != storages.keys():
        raise ValueError(f"it has {len(bytes_of)} of {len(storages)} storages: {AGAIN}")
    return _collect(value, lambda storage: bytes_of[storage.key], "little")


def _collect(value: Any, bytes_of: Callable[[Storage], memoryview], byte_order: str) -> TorchFile:
    arrays, others = {}, {}
    for name, leaf in tensors.leaves(value):
        if name in arrays or name in others:
            raise ValueError(f"refused: two things in it are called {name}")
        if not isinstance(leaf, Tensor):
            others[name] = f"{leaf!r:.60}"
            continue
        try:
            arrays[name] = tensors.view(leaf, bytes_of(leaf.storage), byte_order)
        except ValueError as error:
            raise ValueError(f"tensor {name}: {error}") from error
    return TorchFile(arrays, others)
