"""The folder of a bulk run: which of its files are the program's, and what they contain.

A folder must be new, empty, or carry the mark that the program writes first. In a marked folder
only files of exactly the program's names are read, replaced or deleted.
"""

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.outputs import faces_as_json
from m3dhmr_jax.predict.storage import File, Location

MARK, FACES = "_m3dhmr.json", "_faces.json"
MARK_CONTENT = {"program": "m3dhmr bulk", "format": 1}
SETTINGS_KEY = b"m3dhmr_jax"
SHARD = re.compile(r"hands-[0-9a-f]{16}\.parquet")
# What a killed writer leaves; that of the mark can be all that a folder contains.
LEFTOVER = re.compile(rf"\.({SHARD.pattern}|{re.escape(FACES)}|{re.escape(MARK)})\.[0-9a-f]{{32}}")
PARQUET_START = b"PAR1"
FILES_AT_ONCE = 16  # Read in parallel to find what is finished.


class Version(NamedTuple):
    """What an image was predicted from; the names are those of the columns."""

    file_bytes: int | None
    file_mtime_ns: int | None
    # None: without a file of boxes.
    boxes_sha256: str | None


class Finished(NamedTuple):
    """The rows of an image."""

    version: Version
    error: str | None
    hands: int


class Shard(NamedTuple):
    """The images of a file, and the settings that they were predicted with."""

    settings: dict[str, Any]
    images: dict[str, Finished]


class ShardFolder(NamedTuple):
    """What is in a folder, by file name."""

    shards: dict[str, Shard]
    # To be deleted: what killed writers left, and corrupted shards.
    useless: list[str]

    @property
    def finished(self) -> dict[str, Finished]:
        return {
            image: each for shard in self.shards.values() for image, each in shard.images.items()
        }


def shard_name(images: Sequence[str]) -> str:
    """The file of new images, whichever worker writes it, and however often."""
    name = hashlib.sha256("\n".join(images).encode()).hexdigest()[:16]
    return f"hands-{name}.parquet"


def read_folder(out: Location) -> ShardFolder:
    """Reads what is finished; writes and deletes nothing.

    Raises:
        UserError: if the folder contains files and no mark, a file of another program has the name
            of one of ours, or two files contain the same image.
    """
    entries = out.entries()
    _check_owned(out, entries)
    names = [each.name for each in entries if each.is_file and each.is_nameable]
    shards: dict[str, Shard] = {}
    useless = list(filter(LEFTOVER.fullmatch, names))
    owners: dict[str, str] = {}
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        ours = list(filter(SHARD.fullmatch, names))
        found = pool.map(lambda name: _read_shard(out, name), ours)
        for name, shard in zip(ours, found, strict=True):
            if shard is None:
                useless.append(name)
                continue
            for image in shard.images:
                if owners.setdefault(image, name) != name:
                    raise UserError(
                        f"{out.address}: {owners[image]} and {name} both contain {image}, as if "
                        "two runs had written at once: delete one of the files"
                    )
            shards[name] = shard
    return ShardFolder(shards, useless)


def prepare_folder(out: Location, folder: ShardFolder, faces: Int[np.ndarray, "f 3"]) -> None:
    """Marks the folder as the program's, deletes what is useless, and writes the triangles."""
    out.create()
    out.write_atomic(MARK, json.dumps(MARK_CONTENT).encode())
    for name in folder.useless:
        if SHARD.fullmatch(name):
            print(f"{out.address}/{name} is corrupted; its images count as new", file=sys.stderr)
        out.delete(name)
    out.write_atomic(FACES, faces_as_json(faces))


def _check_owned(out: Location, entries: Sequence[File]) -> None:
    if any(each.name == MARK for each in entries):
        try:
            mark = json.loads(out.read(MARK))
        except ValueError:
            mark = None
        if mark != MARK_CONTENT:
            raise UserError(
                f"{out.address}/{MARK} was written by another program or version, not by this "
                "`m3dhmr bulk`: choose another --out"
            )
        return
    others = [each.name for each in entries if not LEFTOVER.fullmatch(each.name)]
    if others:
        raise UserError(
            f"{out.address} contains files and was not created by `m3dhmr bulk`, which writes into "
            f"new or empty folders or its own: choose another --out ({', '.join(others[:3])})"
        )


def _read_shard(out: Location, name: str) -> Shard | None:
    """None if it is a corrupted file of ours."""
    columns = ["image", "error", "hand", *Version._fields]
    settings = table = None
    with out.open(name) as file:
        try:
            parquet = pq.ParquetFile(file)
            settings = _settings(parquet.schema_arrow)
            table = None if settings is None else parquet.read(columns)
        except pa.ArrowInvalid:
            file.seek(0)
            if file.read(len(PARQUET_START)) in (PARQUET_START, b""):
                return None
    if settings is None or table is None:
        raise UserError(
            f"{out.address}/{name} has a name of `m3dhmr bulk` and was written by something else, "
            "so it is neither used nor replaced: move it to another folder"
        )
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    hands = Counter(image for image, _, hand, *_ in rows if hand is not None)
    return Shard(
        settings,
        {
            image: Finished(Version(*version), error, hands[image])
            for image, error, _, *version in rows
        },
    )


def _settings(schema: pa.Schema) -> dict[str, Any] | None:
    """The settings in a file's metadata; None if the file is not ours."""
    try:
        return json.loads((schema.metadata or {})[SETTINGS_KEY])
    except (KeyError, ValueError):
        return None
