"""Reads long JSON lists of equal number arrays without a Python object per number.

FreiHAND's annotation files are lists of n records, each a nested list of one shape; the largest
holds 76 million numbers in over a gigabyte of text. It is read in blocks of whole records: the
brackets and commas of a block must be exactly those of its shape, and what is left are numbers.
A file of predictions is a list of several such lists.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import orjson
from tqdm import tqdm

BLOCK_BYTES = 8 << 20
_NUMBER_CHARACTERS = b"0123456789.eE+-"
_SPACE = b" \t\r\n"
_END = b";"  # Stands for the bracket that closes the list.


@dataclasses.dataclass(frozen=True)
class _List:
    """A list of records in a file, from the bracket that opens it to the one that closes it."""

    path: Path
    title: str  # What messages begin with.
    record: str  # What they call a record.
    start: int  # Bytes, the brackets not included.
    stop: int
    is_closed: bool  # Else the file ends at `stop`.


def read_records(
    path: Path, shape: tuple[int, ...], dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """Reads a list of records of `shape`, shape (n, *shape).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is cut short, or a record has another shape or is not of finite
            numbers; the message says how many records were read before that.
    """
    return _read(_whole_file(path), shape, dtype)


def read_lists(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: type[np.floating] = np.float32,
    record: str = "record",
) -> list[np.ndarray]:
    """Reads a list of lists of records; `shapes` has a name and the records' shape for each.

    Messages call a list by its name and its records by `record`.

    Raises:
        FileNotFoundError, ValueError: as `read_records`, or if there are more lists or fewer.
    """
    outer = _whole_file(path)
    spans = list(itertools.islice(_items(outer), len(shapes) + 1))
    is_cut = not outer.is_closed or (bool(spans) and not spans[-1][2])
    is_too_short = len(spans) < len(shapes) and not is_cut
    if is_too_short or len(spans) > len(shapes) or _holds_more_than(outer, spans):
        raise ValueError(
            f"{path}: must be a list of exactly {len(shapes)} lists, {' and '.join(shapes)}; "
            "it holds something else"
        )
    lists = [
        _List(path, f"{path}, list of {name}", record, start + 1, stop - is_closed, is_closed)
        for name, (start, stop, is_closed) in zip(shapes, spans, strict=False)
    ]
    arrays = [_read(one, shape, dtype) for one, shape in zip(lists, shapes.values(), strict=False)]
    if is_cut:
        raise ValueError(
            f"{path}: ends in the middle: {len(arrays)} of {len(shapes)} lists are complete. "
            "The file is cut short or damaged: write or copy it again"
        )
    return arrays


def _whole_file(path: Path) -> _List:
    """The list that a file is, by its first and last character."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(BLOCK_BYTES)
        file.seek(max(0, n_bytes - 64))
        tail = file.read()
    if not head.lstrip(_SPACE).startswith(b"["):
        raise ValueError(f"{path}: starts with {head[:20]!r}; expected a JSON list of records")
    start = head.index(b"[") + 1
    is_closed = tail.rstrip(_SPACE).endswith(b"]")
    stop = n_bytes - len(tail) + tail.rindex(b"]") if is_closed else n_bytes
    return _List(path, str(path), "record", start, stop, is_closed)


def _blocks(one: _List) -> Iterator[bytes]:
    with one.path.open("rb") as file:
        file.seek(one.start)
        while block := file.read(min(BLOCK_BYTES, one.stop - file.tell())):
            yield block


def _body(one: _List) -> Iterator[bytes]:
    """The text between the brackets in blocks; _END follows if they are closed."""
    with tqdm(
        total=one.stop - one.start,
        desc=one.path.name,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,
    ) as bar:
        for block in _blocks(one):
            yield block
            bar.update(len(block))
    if one.is_closed:
        yield _END


def _items(one: _List) -> Iterator[tuple[int, int, bool]]:
    """First byte, end, and whether it is closed, of each list directly in this one."""
    offset, depth, start = one.start, 0, 0
    for block in _blocks(one):
        characters = np.frombuffer(block, np.uint8)
        places = np.flatnonzero((characters == ord("[")) | (characters == ord("]")))
        steps = np.where(characters[places] == ord("["), 1, -1)
        depths = depth + np.cumsum(steps)
        for i in np.flatnonzero(((depths == 1) & (steps == 1)) | ((depths == 0) & (steps == -1))):
            place = offset + int(places[i])
            if steps[i] == 1:
                start = place
            else:
                yield start, place + 1, True
        depth = int(depths[-1]) if len(depths) else depth
        offset += len(block)
    if depth > 0:
        yield start, one.stop, False


def _holds_more_than(one: _List, spans: list[tuple[int, int, bool]]) -> bool:
    """Whether there is anything but a comma around these lists."""
    starts, stops = [start for start, *_ in spans], [stop for _, stop, _ in spans]
    with one.path.open("rb") as file:
        for i, (start, stop) in enumerate(
            zip([one.start, *stops], [*starts, one.stop], strict=True)
        ):
            file.seek(start)
            between = file.read(stop - start).strip(_SPACE)
            is_cut_off = i == len(spans) and not one.is_closed
            if between != (b"," if 0 < i < len(spans) else b"") and not is_cut_off:
                return True
    return False


def _read(one: _List, shape: tuple[int, ...], dtype: type[np.floating]) -> np.ndarray:
    blocks, n_read, rest = [], 0, b""
    for chunk in _body(one):
        rest = (rest + chunk).lstrip(_SPACE)
        count, end = _whole_records(rest, shape)
        if count:
            blocks.append(_parse(rest[:end], count, shape, dtype, one, n_read))
            n_read += count
            rest = rest[end:]
    if rest.strip() != _END:
        cut = rest.strip().removesuffix(_END).removeprefix(b",")
        _check_brackets(cut, _skeleton(shape)[: len(_brackets(cut))], shape, one, n_read)
        raise ValueError(
            f"{one.title}: the list ends in the middle: {n_read} whole {one.record}s of shape "
            f"{shape} were read, then {cut[-40:]!r}. The file is cut short or damaged (an "
            "interrupted download or a full disk): get it again"
        )
    return np.concatenate(blocks) if blocks else np.empty((0, *shape), dtype)


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
    text: bytes, expected: bytes, shape: tuple[int, ...], one: _List, n_before: int
) -> None:
    found = _brackets(text)
    if found == expected:
        return
    n = min(len(found), len(expected))
    differs = np.frombuffer(found, np.uint8, n) != np.frombuffer(expected, np.uint8, n)
    same = int(np.argmax(np.append(differs, True)))
    bad = n_before + same // (len(_skeleton(shape)) + 1)
    raise ValueError(
        f"{one.title}: {one.record} {bad} is not a list of shape {shape} of plain numbers "
        f"({_describe(one, shape, bad)}); {bad} {one.record}s were read before it"
    )


def _describe(one: _List, shape: tuple[int, ...], bad: int) -> str:
    """What a record is instead of a list of `shape`."""
    span = next(itertools.islice(_items(one), bad, None), None) if shape else None
    if span is None or not span[2]:
        return "it is another thing, or ends early"
    with one.path.open("rb") as file:
        file.seek(span[0])
        text = file.read(span[1] - span[0])
    try:
        found = np.array(json.loads(text))
    except ValueError:
        return "its lists are of unequal lengths, or it is no JSON"
    if found.shape != shape:
        return f"it has shape {found.shape}"
    is_number = np.issubdtype(found.dtype, np.number)
    return "it holds NaN or infinity" if is_number else "it holds something else than numbers"


def _parse(
    text: bytes,
    count: int,
    shape: tuple[int, ...],
    dtype: type[np.floating],
    one: _List,
    n_before: int,
) -> np.ndarray:
    """The numbers of `count` records; all but the first block start with a comma."""
    text = text.removeprefix(b",")
    _check_brackets(text, b",".join([_skeleton(shape)] * count), shape, one, n_before)
    text = text.translate(None, b"[]")
    try:
        numbers = _numbers(b"[" + text + b"]", dtype)
    except orjson.JSONDecodeError:
        numbers = np.empty(0, dtype)
    n_numbers = count * int(np.prod(shape, dtype=int))
    if numbers.size != n_numbers or not np.isfinite(numbers).all():
        bad = n_before + _count_good(text, dtype) * count // n_numbers
        raise ValueError(
            f"{one.title}: {one.record} {bad} holds something that is not a finite number; "
            f"{bad} {one.record}s were read before it"
        )
    return numbers.reshape(count, *shape)


def _numbers(text: bytes, dtype: type[np.floating]) -> np.ndarray:
    with np.errstate(over="ignore"):  # It becomes infinite, which is refused.
        return np.array(orjson.loads(text), dtype)


def _count_good(text: bytes, dtype: type[np.floating]) -> int:
    """How many numbers are well before the first that is none."""
    for i, number in enumerate(text.split(b",")):
        try:
            good = np.isfinite(_numbers(number, dtype))
        except ValueError:
            good = False
        if not good:
            return i
    return text.count(b",") + 1
