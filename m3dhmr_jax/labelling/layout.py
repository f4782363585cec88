"""From the journal of all hands to a set in FreiHAND's layout.

`labels.json` says of every record its source, box, side and quality, and of every hand and file
that was left out the reason. `training_quality.json` holds one number in (0, 1] for each
annotation, in their order: how far it can be trusted.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from jaxtyping import Bool

from m3dhmr_jax.labelling.journal import KINDS, LABELS, Journal
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.synthetic.example import SPLITS
from m3dhmr_jax.synthetic.writer import ANNOTATIONS

QUALITY = "quality"
# What the journal has of a hand and `labels.json` does not: annotation rows, in JSON.
ROWS = "rows"


def write_layout(
    out: Path,
    journal: Journal,
    is_evaluation: Bool[np.ndarray, " k"],
    about: Mapping[str, Any],
    looked_at: Mapping[str, int],
) -> dict[str, Any]:
    """Moves the journal's crops to their places and writes all files; `labels.json` last.

    It may be interrupted and called again.

    Args:
        is_evaluation: of each hand, in the order of the journal.
        about: the first fields of `labels.json`.
        looked_at: the first counts of `labels.json`.

    Returns:
        All counts of `labels.json`.
    """
    numbers = _numbers(is_evaluation)
    for split in SPLITS:
        for kind in KINDS:
            (out / split / kind).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = {
            (split, kind): stack.enter_context(JsonList(out / f"{split}_{kind}.json"))
            for split in SPLITS
            for kind in (*ANNOTATIONS, QUALITY)
        }
        for hand, (split, number) in zip(_hands(journal), numbers, strict=True):
            for kind in KINDS:
                crop = journal.crop_path(kind, hand["number"])
                if crop.exists():  # Else an interrupted call has moved it.
                    crop.rename(out / split / kind / f"{number:08d}.jpg")
            for kind, row in zip(ANNOTATIONS, hand[ROWS], strict=True):
                files[split, kind].add(row.encode())
            files[split, QUALITY].add(orjson.dumps(hand["quality"]))
    counts = {**looked_at, **_count(journal, is_evaluation)}
    with write_atomic(out / LABELS) as partial, partial.open("wb") as file:
        head = orjson.dumps({**about, "counts": counts}, option=orjson.OPT_INDENT_2)
        file.write(head.removesuffix(b"\n}"))
        _write_list(file, "hands", _kept(journal, numbers))
        _write_list(file, "left_out", _left_out(journal))
        _write_list(file, "skipped", _skipped(journal))
        file.write(b"\n}\n")
    journal.remove()
    return counts


def _count(journal: Journal, is_evaluation: Bool[np.ndarray, " k"]) -> dict[str, Any]:
    """How many hands each split has, and how many were left out for which reason."""
    reasons = Counter(hand["reason"] for hand in _left_out(journal))
    return {
        SPLITS[0]: int((~is_evaluation).sum()),
        SPLITS[1]: int(is_evaluation.sum()),
        "mirrored": sum(hand["mirrored"] for hand in _hands(journal)),
        "left_out": dict(sorted(reasons.items())),
    }


class JsonList(contextlib.AbstractContextManager):
    """Writes a list item by item; the file appears when it is complete."""

    def __init__(self, path: Path):
        self._atomic = write_atomic(path)

    def __enter__(self) -> "JsonList":
        self._file = self._atomic.__enter__().open("wb")
        self._start = b"["
        return self

    def add(self, item: bytes) -> None:
        self._file.write(self._start + item)
        self._start = b","

    def __exit__(self, *error: Any) -> None:
        with self._file:
            self._file.write(b"]" if self._start == b"," else b"[]")
        self._atomic.__exit__(*error)


def _numbers(is_evaluation: Bool[np.ndarray, " k"]) -> Sequence[tuple[str, int]]:
    """Split and number of each hand."""
    rows = np.where(is_evaluation, np.cumsum(is_evaluation), np.cumsum(~is_evaluation)) - 1
    return [(SPLITS[int(e)], int(row)) for e, row in zip(is_evaluation, rows, strict=True)]


def _hands(journal: Journal) -> Iterator[dict[str, Any]]:
    for entry in journal.entries():
        yield from entry.get("hands", ())


def _where(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"source": entry["source"], "frame": entry["frame"]}


def _kept(journal: Journal, numbers: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    remaining = iter(numbers)
    for entry in journal.entries():
        for hand in entry.get("hands", ()):
            split, number = next(remaining)
            named = {"image": f"{split}/rgb/{number:08d}.jpg", "split": split}
            rest = {name: x for name, x in hand.items() if name not in ("number", ROWS)}
            yield named | _where(entry) | rest


def _left_out(journal: Journal) -> Iterator[dict[str, Any]]:
    for entry in journal.entries():
        for hand in entry.get("left_out", ()):
            yield _where(entry) | hand


def _skipped(journal: Journal) -> Iterator[dict[str, Any]]:
    return (entry for entry in journal.entries() if "reason" in entry)


def _write_list(file: IO[bytes], name: str, items: Iterator[dict[str, Any]]) -> None:
    """One more field of a JSON object whose end is not yet written; one item a line."""
    file.write(b',\n  "%s": [' % name.encode())
    for i, item in enumerate(items):
        file.write((b",\n    " if i else b"\n    ") + orjson.dumps(item))
    file.write(b"\n  ]")
