"""Reads a finished set of labels."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson
import orjson

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.labelling.journal import LABELS
from m3dhmr_jax.synthetic.writer import ANNOTATIONS


def is_finished(folder: Path) -> bool:
    """Whether a finished set is there."""
    return (folder / LABELS).is_file()


def read_labels(folder: Path) -> dict[str, Any]:
    """The content of `labels.json`.

    Raises:
        UserError: if the folder is not a finished set of `m3dhmr label`.
    """
    path = folder / LABELS
    if not path.is_file():
        raise UserError(f"{folder} is not a finished set of m3dhmr label: it has no {LABELS}")
    try:
        labels = orjson.loads(path.read_bytes())
        {name: labels[name] for name in ("settings", "split_by", "counts", "hands", "left_out")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a list of labels of this program ({error})") from error
    return labels


def set_id(folder: Path) -> str:
    """Identifies a set, so that a list of its records is not applied to another one."""
    return hashlib.sha256((folder / LABELS).read_bytes()).hexdigest()[:16]


def read_rows(folder: Path, split: str) -> Iterator[tuple[str, ...]]:
    """The annotation rows of a split, in JSON, read one by one."""
    paths = [folder / f"{split}_{kind}.json" for kind in ANNOTATIONS]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        columns = [ijson.items(file, "item", use_float=True) for file in files]
        for row in zip(*columns, strict=True):
            yield tuple(json.dumps(values, separators=(",", ":")) for values in row)
