"""Folders on a disk or in a bucket: the images in them, and files that appear when complete."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.file_kinds import IMAGE_SUFFIXES
from m3dhmr_jax.predict.left_out import OWN_RESULT, LeftOut, describe, no_image
from m3dhmr_jax.runtime.files import DiskFullError, explain_disk_full, readable, user_path
from m3dhmr_jax.runtime.results_folder import MANIFEST, parse_manifest


class File(NamedTuple):
    """What a folder contains, and what changes when somebody replaces it."""

    path: str
    is_file: bool
    n_bytes: int | None
    mtime_ns: int | None
    # False: its name is not UTF-8, so it cannot be opened, and `path` is only for messages.
    is_nameable: bool = True

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix.lower()


class Location(NamedTuple):
    """A folder on a disk or in a bucket."""

    filesystem: fs.FileSystem
    path: str
    scheme: str  # Before the path in addresses; "" on a disk.

    @property
    def address(self) -> str:
        return self.scheme + self.path

    def entries(self, *, recursive: bool = False) -> list[File]:
        """What it contains, sorted by path; nothing if it does not exist.

        Raises:
            UserError: if it cannot be listed.
        """
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        try:
            found = map(_to_file, self.filesystem.get_file_info(selector))
            return sorted(found, key=lambda each: each.path)
        except OSError as error:
            raise UserError(f"{self.address} cannot be listed: {_reason(error)}") from error

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[pa.NativeFile]:
        """A file to read, with random access.

        Raises:
            UserError: if it cannot be opened, or read within the block.
        """
        path = f"{self.path}/{name}"
        try:
            with self.filesystem.open_input_file(path) as file:
                yield file
        except OSError as error:
            raise UserError(f"{self.scheme}{path} cannot be read: {_reason(error)}") from error

    def read(self, name: str) -> bytes:
        """The content of a file; raises what `open` raises."""
        with self.open(name) as file:
            return file.read()

    def delete(self, name: str) -> None:
        """Deletes a file; raises what `write_atomic` raises."""
        with self._explain_failure():
            self.filesystem.delete_file(f"{self.path}/{name}")

    def create(self) -> None:
        """Creates the folder if it does not exist; raises what `write_atomic` raises."""
        with self._explain_failure():
            self.filesystem.create_dir(self.path)

    def write_atomic(self, name: str, content: bytes | pa.Buffer) -> None:
        """Writes a file under a hidden name, which readers ignore, and renames it when complete.

        Raises:
            DiskFullError: if the disk is full.
            UserError: if the folder cannot be written to for another reason.
        """
        hidden = f"{self.path}/.{name}.{uuid.uuid4().hex}"
        with self._explain_failure():
            try:
                with self.filesystem.open_output_stream(hidden) as file:
                    file.write(content)
                self.filesystem.move(hidden, f"{self.path}/{name}")
            except BaseException:
                with contextlib.suppress(OSError):
                    self.filesystem.delete_file(hidden)
                raise

    @contextlib.contextmanager
    def _explain_failure(self) -> Iterator[None]:
        try:
            with explain_disk_full(Path(self.path)):
                yield
        except DiskFullError:
            raise
        except OSError as error:
            raise UserError(f"{self.address} cannot be written to: {_reason(error)}") from error


class FoundImages(NamedTuple):
    """The images at an address, and what else is there."""

    source: Location
    # By path; their paths are addresses.
    images: list[File]
    # Images whose names are not UTF-8, as can be printed.
    unnameable: list[str]
    # Results of `m3dhmr predict`, and files of a folder that are not images.
    left_out: LeftOut


def open_location(address: str) -> Location:
    """A path, or an address such as s3://bucket/folder.

    Raises:
        UserError: if such addresses are not supported, or the bucket cannot be reached.
    """
    try:
        address.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{readable(address)}: its name is not UTF-8, which Parquet requires: rename it"
        ) from error
    if "://" not in address:
        return Location(fs.LocalFileSystem(), os.path.abspath(user_path(address)), "")
    try:
        filesystem, path = fs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{address} cannot be opened: {error}") from error
    return Location(filesystem, path.rstrip("/"), address.partition("://")[0] + "://")


def find_images(address: str) -> FoundImages:
    """All images of a folder and its subfolders, or all files that match a pattern with "*".

    Raises:
        UserError: if there are none, or the folder cannot be listed.
    """
    if "://" not in address:
        address = os.path.abspath(user_path(address))
    folder, is_pattern = address.partition("*")[0].rpartition("/")[0], "*" in address
    location = open_location(folder if is_pattern else address)
    top = None if is_pattern else _find_file(location, location.path)
    if top:
        found = [top]
        beside = _find_file(location, f"{top.path.rpartition('/')[0]}/{MANIFEST}")
        own = own_outputs(location, [beside] if beside else [])
    else:
        found = [each for each in location.entries(recursive=True) if each.is_file]
        own = own_outputs(location, found)
    left_out = LeftOut()
    if is_pattern:
        literals = (location.path + address[len(folder) :]).split("*")
        pattern = re.compile(".*".join(map(re.escape, literals)))
        found = [each for each in found if pattern.fullmatch(each.path)]
    elif top is None:
        left_out = LeftOut(
            no_image(each.suffix)
            for each in found
            if each.suffix not in IMAGE_SUFFIXES and each.path not in own
        )
        found = [each for each in found if each.suffix in IMAGE_SUFFIXES]
    result = FoundImages(
        location,
        [
            each._replace(path=location.scheme + each.path)
            for each in found
            if each.is_nameable and each.path not in own
        ],
        [each.path for each in found if not each.is_nameable and each.path not in own],
        left_out + LeftOut({OWN_RESULT: sum(each.path in own for each in found)}),
    )
    if not result.images:
        reasons = [f"{address}: no image found"]
        if result.unnameable:
            reasons.append(describe_unnameable(result.unnameable))
        if result.left_out:
            reasons.append(f"left out: {describe(result.left_out.items())}")
        raise UserError("; ".join(reasons))
    return result


def describe_unnameable(paths: Sequence[str]) -> str:
    return (
        f"{len(paths)} files have names that are not UTF-8, which Parquet requires: rename "
        + ", ".join(paths[:10])
    )


def own_outputs(location: Location, found: Sequence[File]) -> set[str]:
    """The paths of those files that `m3dhmr predict` lists as its own, and of its lists."""
    own: set[str] = set()
    for each in found:
        if each.name == MANIFEST and each.is_nameable:
            folder = location._replace(path=each.path.rpartition("/")[0])
            manifest = parse_manifest(folder.read(MANIFEST))
            if manifest is not None:
                own |= {f"{folder.path}/{readable(name)}" for name in {MANIFEST, *manifest.names}}
    return own


def _find_file(location: Location, path: str) -> File | None:
    """The file of this path; None if it is a folder or nothing."""
    try:
        found = location.filesystem.get_file_info(path)
    except OSError as error:
        raise UserError(f"{location.scheme}{path} cannot be read: {_reason(error)}") from error
    return _to_file(found) if found.is_file else None


def _to_file(info: fs.FileInfo) -> File:
    try:
        path, is_nameable = info.path, True
    except UnicodeDecodeError as error:
        path, is_nameable = readable(os.fsdecode(error.object)), False
    return File(path, info.is_file, info.size, info.mtime_ns, is_nameable)


def _reason(error: OSError) -> str:
    """The system's words, where the error is the system's; they are shorter than Arrow's."""
    return os.strerror(error.errno) if error.errno else str(error)
