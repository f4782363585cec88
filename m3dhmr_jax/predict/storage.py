"""Folders on a disk or in a bucket: the images in them, and files that appear when complete."""

import os
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.frames import IMAGE_SUFFIXES
from m3dhmr_jax.runtime.files import user_path


class Location(NamedTuple):
    """A folder on a disk or in a bucket."""

    filesystem: fs.FileSystem
    path: str
    scheme: str  # Before the path in addresses; "" on a disk.

    def write_atomic(self, name: str, content: bytes | pa.Buffer) -> None:
        """Writes a file under a hidden name, which readers ignore, and renames it when complete."""
        hidden = f"{self.path}/.{name}.{uuid.uuid4().hex}"
        with self.filesystem.open_output_stream(hidden) as file:
            file.write(content)
        self.filesystem.move(hidden, f"{self.path}/{name}")


def open_location(address: str) -> Location:
    """A path, or an address such as s3://bucket/folder.

    Raises:
        UserError: if such addresses are not supported, or the bucket cannot be reached.
    """
    if "://" not in address:
        return Location(fs.LocalFileSystem(), os.path.abspath(user_path(address)), "")
    try:
        filesystem, path = fs.FileSystem.from_uri(address)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{address} cannot be opened: {error}") from error
    return Location(filesystem, path.rstrip("/"), address.partition("://")[0] + "://")


def find_images(address: str) -> tuple[Location, list[str]]:
    """All images of a folder and its subfolders, or all files that match a pattern with "*".

    Raises:
        UserError: if there are none.
    """
    if "://" not in address:
        address = os.path.abspath(user_path(address))
    folder, is_pattern = address.partition("*")[0].rpartition("/")[0], "*" in address
    location = open_location(folder if is_pattern else address)
    top = location.filesystem.get_file_info(location.path)
    below = fs.FileSelector(location.path, allow_not_found=True, recursive=True)
    found = [top] if top.is_file else location.filesystem.get_file_info(below)
    paths = sorted(each.path for each in found if each.is_file)
    if is_pattern:
        literals = (location.path + address[len(folder) :]).split("*")
        pattern = re.compile(".*".join(map(re.escape, literals)))
        paths = [path for path in paths if pattern.fullmatch(path)]
    elif not top.is_file:
        paths = [path for path in paths if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise UserError(f"{address}: no image found")
    return location, [location.scheme + path for path in paths]
