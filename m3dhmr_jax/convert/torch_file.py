"""Reads the tensors of files that torch.save or safetensors wrote, without PyTorch.

Nothing in a file is ever run or decompressed: arrays are read-only views of the file, which is
mapped into memory, and none can hold more numbers than the file has for it.
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

from m3dhmr_jax.convert import tensors
from m3dhmr_jax.convert.tensors import Storage, Tensor
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import safe_pickle

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
CORRUPTED = "it is truncated or corrupted; download it again"


class TorchFile(NamedTuple):
    """The content of a file, named by its path of keys, joined by dots."""

    arrays: dict[str, np.ndarray]
    # Numbers, strings and the like, as text.
    others: dict[str, str]


def read(path: str | Path) -> TorchFile:
    """The tensors of a .pth, .pt or .safetensors file; its bytes decide which of these it is.

    Raises:
        UserError: if there is no such file, it is none of these, truncated or corrupted, or
            contains anything but tensors, numbers, strings and plain containers.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected a .pth, .pt or .safetensors file")
    with Path(path).open("rb") as file:
        start = file.read(len(LEGACY_START))
        try:
            if start.startswith(ZIP_START):
                return _read_zip(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if start == LEGACY_START:
                return _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if start[8:9] == b"{":  # After the length of this header.
                return _read_safetensors(path)
        except ValueError as error:  # Libraries raise it for corrupted numbers, too.
            raise UserError(f"{path}: {error}") from error
    raise UserError(
        f"{path}: starts with the bytes {start!r}, so it is neither a file of torch.save (since "
        "PyTorch 0.1.10) nor a safetensors file"
    )


def _read_safetensors(path: str | Path) -> TorchFile:
    try:
        return TorchFile(safetensors.numpy.load_file(path), {})
    except (safetensors.SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{CORRUPTED} ({error})") from error


def _read_zip(content: mmap.mmap) -> TorchFile:
    """The format since PyTorch 1.6: an uncompressed zip archive of a pickle and its storages."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise UserError(f"{CORRUPTED} ({error})") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    root = next((name[:-8] for name in entries if name.endswith("/data.pkl")), None)
    if root is None:
        raise UserError("a zip archive, but not one of torch.save: it has no data.pkl")
    if f"{root}constants.pkl" in entries:
        raise UserError("rejected: a program of torch.jit.save, not the state_dict() of a model")

    @functools.cache
    def part(name: str) -> memoryview:
        if root + name not in entries:
            raise UserError(f"its entry {name} is missing: {CORRUPTED}")
        return _stored(content, entries[root + name])

    order = "little"  # Written since PyTorch 2.1 only.
    if f"{root}byteorder" in entries:
        order = bytes(part("byteorder")).decode(errors="replace")
    if order not in ("little", "big"):
        raise UserError(f"its byte order is {order!r:.40}, neither 'little' nor 'big'")
    value = safe_pickle.load(io.BytesIO(part("data.pkl")), tensors.ADMITTED, tensors.storage)
    return _collect(value, lambda storage: part(f"data/{storage.key}"), order)


def _stored(content: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry, at their position in the archive."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise UserError(
            f"rejected: its entry {entry.filename} is compressed or encrypted, "
            "which torch.save never does"
        )
    # A header of 30 bytes precedes them; its last four are the lengths of two strings after it.
    header = content[entry.header_offset : entry.header_offset + 30]
    if len(header) < 30 or not header.startswith(ZIP_START):
        raise UserError(f"its entry {entry.filename} is not at its position: {CORRUPTED}")
    first = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    found = memoryview(content)[first : first + entry.file_size]
    if len(found) != entry.file_size or zlib.crc32(found) != entry.CRC:
        raise UserError(f"its entry {entry.filename} fails its checksum: {CORRUPTED}")
    return found


def _read_legacy(content: mmap.mmap) -> TorchFile:
    """The format before PyTorch 1.6: pickles one after the other, then the storages."""
    stream = io.BytesIO(content)
    for _ in range(3):  # The magic number, a version that never changed, the sizes of C's types.
        safe_pickle.load(stream, {})
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        found = tensors.storage(reference)
        return storages.setdefault(found.key, found)

    value = safe_pickle.load(stream, tensors.ADMITTED, storage)
    bytes_of = {}
    keys = safe_pickle.load(stream, {})
    if not isinstance(keys, list):
        raise UserError(f"its storages are listed as a {type(keys).__name__}: {CORRUPTED}")
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise UserError(f"no tensor is in its storage {key!r:.40}: {CORRUPTED}")
        size = storages[key].count * storages[key].dtype.itemsize
        first = stream.tell() + 8  # After the count of its numbers.
        if first + size > len(content):
            raise UserError(f"it ends after {len(content)} bytes, within a tensor: {CORRUPTED}")
        bytes_of[key] = memoryview(content)[first : first + size]
        stream.seek(first + size)
    if bytes_of.keys() != storages.keys():
        raise UserError(f"it has {len(bytes_of)} of {len(storages)} storages: {CORRUPTED}")
    return _collect(value, lambda storage: bytes_of[storage.key], "little")


def _collect(value: Any, bytes_of: Callable[[Storage], memoryview], byte_order: str) -> TorchFile:
    arrays, others = {}, {}
    for name, leaf in tensors.leaves(value):
        if name in arrays or name in others:
            raise UserError(f"rejected: two entries are named {name}")
        if not isinstance(leaf, Tensor):
            others[name] = f"{leaf!r:.60}"
            continue
        try:
            arrays[name] = tensors.view(leaf, bytes_of(leaf.storage), byte_order)
        except ValueError as error:
            raise UserError(f"tensor {name}: {error}") from error
    return TorchFile(arrays, others)
