"""Reads long JSON lists of equally shaped number arrays in one pass.

FreiHAND's annotation files are lists of n records, each a nested list of one shape; the largest
holds 76 million numbers in over a gigabyte of text. Numbers go straight into the array; nothing
else of the text is kept. A file of predictions is a list of several such lists, or a zip of it.
"""

import contextlib
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import ijson
import numpy as np
from tqdm import tqdm

from m3dhmr_jax.errors import UserError

Event = tuple[str, object]  # As ijson.basic_parse yields them.


def read_records(
    path: Path, shape: tuple[int, ...], dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """Reads a list of records of `shape`; the result has the shape (n, *shape).

    Raises:
        UserError: if there is no such file, it is truncated, or a record has another shape or is
            not of finite numbers; the message gives the number of records read before that.
    """
    expected = f"a JSON list of records of shape {shape}"
    with _events(path, expected) as events:
        _expect(events, "start_array", path, expected)
        records = _read_list(events, shape, dtype, f"{path}: record", expected)
        _expect(events, None, path, expected)
    return records


def read_lists(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: type[np.floating] = np.float32,
    record: str = "record",
    max_zipped_bytes: int = 0,
) -> list[np.ndarray]:
    """Reads a list of lists of records; `shapes` has a name and the records' shape for each.

    Messages call a list by its name and its records by `record`. The file may be a zip with one
    JSON file of at most `max_zipped_bytes`.

    Raises:
        UserError: as `read_records`, or if there are more lists or fewer.
    """
    parts = (f"{name} of shape {shape}" for name, shape in shapes.items())
    expected = f"a JSON list of exactly {len(shapes)} lists, {' and '.join(parts)}"
    arrays = []
    with _events(path, expected, max_zipped_bytes) as events:
        _expect(events, "start_array", path, expected)
        for name, shape in shapes.items():
            _expect(events, "start_array", path, expected)
            title = f"{path}, list of {name}: {record}"
            arrays.append(_read_list(events, shape, dtype, title, expected))
        _expect(events, "end_array", path, expected)
        _expect(events, None, path, expected)
    return arrays


@contextlib.contextmanager
def _events(path: Path, expected: str, max_zipped_bytes: int = 0) -> Iterator[Iterator[Event]]:
    """What the file holds, as a stream; shows its progress."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected {expected}")
    bar = {"desc": path.name, "leave": False, "disable": None}
    with (
        _open(path, max_zipped_bytes) as (file, n_bytes),
        tqdm.wrapattr(file, "read", total=n_bytes, **bar) as text,
    ):
        try:
            yield ijson.basic_parse(text, use_float=True)
        except ijson.JSONError as error:
            raise _truncated(str(path), expected, error) from error


@contextlib.contextmanager
def _open(path: Path, max_zipped_bytes: int) -> Iterator[tuple[IO[bytes], int]]:
    """The file, or the only JSON file in it if it is a zip and these are read, and its size."""
    with path.open("rb") as file:
        if not max_zipped_bytes or file.read(2) != b"PK":
            file.seek(0)
            yield file, path.stat().st_size
            return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".json")]
            names = [name for name in names if not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise UserError(f"{path}: holds {len(names)} .json files, expected exactly one")
            n_bytes = archive.getinfo(names[0]).file_size
            if n_bytes > max_zipped_bytes:
                raise UserError(
                    f"{path}: {names[0]} has {n_bytes >> 20} MB, more than the "
                    f"{max_zipped_bytes >> 20} MB that such a file can need; nothing was unpacked"
                )
            with archive.open(names[0]) as file:
                yield file, n_bytes
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{path}: not a readable zip ({error}): it is truncated, corrupted, encrypted or of "
            "an uncommon kind; get it again, or unpack it and pass the .json file"
        ) from error


def _truncated(title: str, expected: str, error: ijson.JSONError) -> UserError:
    return UserError(
        f"{title}: truncated or not JSON ({str(error).splitlines()[0]}); expected {expected}. "
        "After an interrupted download or on a full disk: get the file again"
    )


def _expect(events: Iterator[Event], kind: str | None, path: Path, expected: str) -> None:
    event, _ = next(events, (None, None))
    if event != kind:
        raise UserError(f"{path}: unexpected content; expected {expected}")


def _brackets(shape: tuple[int, ...], start: int = 0) -> list[tuple[str, int]]:
    """The brackets of one record, each with the count of the record's numbers before it."""
    if not shape:
        return []
    size = int(np.prod(shape[1:], dtype=int))
    inner = (_brackets(shape[1:], start + i * size) for i in range(shape[0]))
    opening, closing = ("start_array", start), ("end_array", start + shape[0] * size)
    return [opening, *itertools.chain.from_iterable(inner), closing]


def _read_list(
    events: Iterator[Event],
    shape: tuple[int, ...],
    dtype: type[np.floating],
    title: str,
    expected: str,
) -> np.ndarray:
    """The records up to the bracket that closes their list; the opening one was read already."""
    brackets = _brackets(shape)
    n_read = count = 0  # Complete records, and numbers of the next; a record may be one number.

    def numbers() -> Iterator[object]:
        nonlocal n_read, count
        position = 0  # In `brackets`.
        for event, value in events:
            if event == "number":
                count += 1
                yield value
            elif position < len(brackets) and (event, count) == brackets[position]:
                position += 1
                if position == len(brackets):
                    count, position, n_read = 0, 0, n_read + 1
            elif event == "end_array" and position == 0 and (count == 0 or not shape):
                return
            else:
                n_before = n_read if shape else count
                raise UserError(
                    f"{title} {n_before} does not have the shape {shape}, or holds something other "
                    f"than numbers; {n_before} were read before it. Expected {expected}"
                )

    try:
        with np.errstate(over="ignore"):  # Too large a number becomes infinite.
            values = np.fromiter(numbers(), dtype)
    except ijson.JSONError as error:
        n_before = n_read if shape else count
        message = f"{title} {n_before} (all before it are complete)"
        raise _truncated(message, expected, error) from error
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(np.argmin(finite)) // int(np.prod(shape, dtype=int))
        raise UserError(f"{title} {bad} holds a number that is not finite; expected {expected}")
    return values.reshape(-1, *shape)
