"""Reads long JSON lists of equal number arrays without a Python object per number.

FreiHAND's annotation files are lists of n records, each a nested list of one shape; the largest
holds 76 million numbers in over a gigabyte of text. It is read in blocks of whole records: the
brackets and commas of a block must be exactly those of its shape, and what is left are numbers.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

BLOCK_BYTES = 8 << 20
_NUMBER_CHARACTERS = b"0123456789.eE+-"
_SPACE = b" \t\r\n"
_END = b";"  # Stands for the bracket that closes the list.


def read_records(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads a list of records of `shape` as float32, shape (n, *shape).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is cut short, or a record has another shape or is not of finite
            numbers; the message says how many records were read before that.
    """
    blocks, n_read, rest = [], 0, b""
    for chunk in _body(path):
        rest = (rest + chunk).lstrip(_SPACE)
        count, end = _whole_records(rest, shape)
        if count:
            blocks.append(_parse(rest[:end], count, shape, path, n_read))
            n_read += count
            rest = rest[end:]
    if rest.strip() != _END:
        cut = rest.strip().removesuffix(_END).removeprefix(b",")
        _check_brackets(cut, _skeleton(shape)[: len(_brackets(cut))], shape, path, n_read)
        raise ValueError(
            f"{path}: the list ends in the middle: {n_read} whole records of shape {shape} were "
            f"read, then {cut[-40:]!r}. The file is cut short or damaged (an interrupted download "
            "or a full disk): get it again"
        )
    return np.concatenate(blocks) if blocks else np.empty((0, *shape), np.float32)


def _body(path: Path) -> Iterator[bytes]:
    """The text between the outermost brackets in chunks; _END follows if they are closed."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file")
    n_bytes = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(
            total=n_bytes, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None
        ) as bar,
    ):
        file.seek(max(0, n_bytes - 64))
        tail = file.read()
        is_closed = tail.rstrip(_SPACE).endswith(b"]")
        stop = n_bytes - len(tail) + tail.rindex(b"]") if is_closed else n_bytes
        file.seek(0)
        head = file.read(min(BLOCK_BYTES, stop)).lstrip(_SPACE)
        if not head.startswith(b"["):
            raise ValueError(f"{path}: starts with {head[:20]!r}; expected a JSON list of records")
        yield head[1:]
        while chunk := file.read(min(BLOCK_BYTES, stop - file.tell())):
            bar.update(len(chunk))
            yield chunk
    if is_closed:
        yield _END


def _whole_records(text: bytes, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many records are complete in `text`, and where the last of them ends."""
    characters = np.frombuffer(text, np.uint8)
    if not shape:  # A number is complete when what follows it has been seen.
        stops = np.flatnonzero((characters == ord(",")) | (characters == ord(_END)))
        stops = stops[stops > 0]
        return len(stops), int(stops[-1]) if len(stops) else 0
    closings = np.flatnonzero(characters == ord("]"))
    per_record = _skeleton(shape).count(b"]")
    count = len(closings) // per_record
    return count, int(closings[count * per_record - 1]) + 1 if count else 0


def _skeleton(shape: tuple[int, ...]) -> bytes:
    """One record without its numbers: `[[,],[,]]` for (2, 2)."""
    if not shape:
        return b""
    return b"[" + b",".join([_skeleton(shape[1:])] * shape[0]) + b"]"


def _brackets(text: bytes) -> bytes:
    """Everything but numbers and white space."""
    return text.translate(None, _NUMBER_CHARACTERS + _SPACE)


def _check_brackets(
    text: bytes, expected: bytes, shape: tuple[int, ...], path: Path, n_before: int
) -> None:
    found = _brackets(text)
    if found == expected:
        return
    n = min(len(found), len(expected))
    differs = np.frombuffer(found, np.uint8, n) != np.frombuffer(expected, np.uint8, n)
    same = int(np.argmax(np.append(differs, True)))
    bad = n_before + same // (len(_skeleton(shape)) + 1)
    raise ValueError(
        f"{path}: record {bad} is not a list of shape {shape} of plain numbers (it has "
        f"{found[same : same + 20]!r} where {expected[same : same + 20]!r} should be); "
        f"{bad} records were read before it"
    )


def _parse(
    text: bytes, count: int, shape: tuple[int, ...], path: Path, n_before: int
) -> np.ndarray:
    """The numbers of `count` records; all but the first block start with a comma."""
    text = text.removeprefix(b",")
    _check_brackets(text, b",".join([_skeleton(shape)] * count), shape, path, n_before)
    text = text.translate(None, b"[]")
    n_numbers = count * int(np.prod(shape, dtype=int))
    with warnings.catch_warnings():  # Before 2.4 NumPy warns and stops at what is no number.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            numbers = np.fromstring(text, np.float32, sep=",")
        except ValueError:
            numbers = np.empty(0, np.float32)
    has_gap = b",," in b"," + text.translate(None, _SPACE) + b","  # NumPy would fill it.
    if has_gap or numbers.size != n_numbers or not np.isfinite(numbers).all():
        bad = n_before + _count_good(text) * count // n_numbers
        raise ValueError(
            f"{path}: record {bad} holds something that is not a finite number; "
            f"{bad} records were read before it"
        )
    return numbers.reshape(count, *shape)


def _count_good(text: bytes) -> int:
    """How many numbers are well before the first that is none."""
    for i, number in enumerate(text.split(b",")):
        try:
            good = np.isfinite(np.float32(float(number)))
        except ValueError:
            good = False
        if not good:
            return i
    return text.count(b",") + 1
