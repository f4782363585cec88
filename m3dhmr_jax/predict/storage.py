"""Folders on a disk or in a bucket: their photos, and files that appear when they are whole."""

import os
import re
import uuid
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from m3dhmr_jax.predict.frames import PHOTO_SUFFIXES


class Place(NamedTuple):
    """A folder on a disk or in a bucket."""

    filesystem: fs.FileSystem
    path: str
    scheme: str  # Before the path in addresses; "" on a disk.


def place_of(address: str) -> Place:
    """A path, or an address such as s3://bucket/folder.

    Raises:
        ValueError, OSError: if nothing is known of such addresses, or the bucket cannot be reached.
    """
    if "://" not in address:
        return Place(fs.LocalFileSystem(), os.path.abspath(address), "")
    filesystem, path = fs.FileSystem.from_uri(address)
    return Place(filesystem, path.rstrip("/"), address.partition("://")[0] + "://")


def find_photos(address: str) -> tuple[Place, list[str]]:
    """All photos of a folder and its folders, or all files that match a pattern with "*".

    Raises:
        FileNotFoundError: if there are none.
    """
    if "://" not in address:
        address = os.path.abspath(address)
    folder, is_pattern = address.partition("*")[0].rpartition("/")[0], "*" in address
    place = place_of(folder if is_pattern else address)
    top = place.filesystem.get_file_info(place.path)
    below = fs.FileSelector(place.path, allow_not_found=True, recursive=True)
    found = [top] if top.is_file else place.filesystem.get_file_info(below)
    paths = sorted(each.path for each in found if each.is_file)
    if is_pattern:
        parts = (place.path + address[len(folder) :]).split("*")
        pattern = re.compile(".*".join(map(re.escape, parts)))
        paths = [path for path in paths if pattern.fullmatch(path)]
    elif not top.is_file:
        paths = [path for path in paths if Path(path).suffix.lower() in PHOTO_SUFFIXES]
    if not paths:
        raise FileNotFoundError(f"--images {address}: no photo there")
    return place, [place.scheme + path for path in paths]


def write_whole(filesystem: fs.FileSystem, path: str, content: bytes | pa.Buffer) -> None:
    """Writes a file that nobody sees before it is complete: readers pass over hidden ones."""
    folder, _, name = path.rpartition("/")
    hidden = f"{folder}/.{name}.{uuid.uuid4().hex}"
    with filesystem.open_output_stream(hidden) as file:
        file.write(content)
    filesystem.move(hidden, path)
