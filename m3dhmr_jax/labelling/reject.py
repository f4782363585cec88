"""Copies a set without the hands that a person rejected; the set itself stays as it is."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.labelling.journal import KINDS, Entry, Journal, open_journal
from m3dhmr_jax.labelling.labelled_set import read_labels, read_rows, set_id
from m3dhmr_jax.labelling.layout import write_layout
from m3dhmr_jax.labelling.run import print_summary
from m3dhmr_jax.runtime.files import explain_disk_full, user_path
from m3dhmr_jax.synthetic.example import SPLITS

REJECTED = "rejected by a person"


def copy_without(photos: Sequence[str], lists: Sequence[Path], out: Path) -> None:
    """Writes the set in the only folder of `photos` to `out`, without the records in `lists`.

    The parts for training and evaluation stay as they are. `labels.json` has the rejected hands
    among those left out.

    Raises:
        UserError: if there are several folders, or it is not a finished set; if a list is not of
            this set, or leaves nothing for training or evaluation; or as `open_journal`.
    """
    if len(photos) != 1:
        raise UserError(f"--reject is for one labelled set, and {len(photos)} folders were given")
    folder = user_path(photos[0])
    labels = read_labels(folder)
    rejected = read_rejected(lists, folder)
    unknown = rejected - {hand["image"] for hand in labels["hands"]}
    if unknown:
        raise UserError(f"{folder} has no record {min(unknown)}, which a list rejects")
    is_evaluation = np.array(
        [h["split"] == SPLITS[1] for h in labels["hands"] if h["image"] not in rejected], bool
    )
    if is_evaluation.all() or not is_evaluation.any():
        raise UserError(
            f"without {len(rejected)} rejected hands, {folder} has none left for training or for "
            "evaluation: label more photos"
        )
    settings = {"copied_from": set_id(folder), "without": sorted(rejected)}
    with explain_disk_full(out), open_journal(out, settings) as journal:
        done = sum(1 for _ in journal.entries())
        for i, entry in enumerate(_entries(folder, labels, rejected)):
            if i >= done:
                for hand in entry.get("hands", ()):
                    _copy_crops(folder, hand.pop("image"), journal, hand["number"])
                journal.append(entry)
        about = {
            "settings": labels["settings"],
            "split_by": labels["split_by"],
            "rejected": sorted(rejected),
        }
        names = ("images", "images_without_hands")
        looked_at = {name: labels["counts"][name] for name in names}
        counts = write_layout(out, journal, is_evaluation, about, looked_at)
    print_summary(out, counts)


def read_rejected(lists: Sequence[Path], folder: Path) -> set[str]:
    """The records in all lists, by the names of their images.

    Raises:
        UserError: if a file is not such a list, or one of another set than that in `folder`.
    """
    rejected: set[str] = set()
    for path in lists:
        try:
            content = orjson.loads(path.read_bytes())
            found, names = content["set"], content["rejected"]
        except OSError as error:
            raise UserError(f"--reject {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--reject {path}: not a list that was saved on a page") from error
        if found != set_id(folder):
            raise UserError(f"--reject {path} was saved on a page of another set than {folder}")
        rejected.update(names)
    return rejected


def _entries(folder: Path, labels: dict[str, Any], rejected: set[str]) -> Iterator[Entry]:
    """One entry for each hand of the set and each file or hand that it left out."""
    rows = {split: read_rows(folder, split) for split in SPLITS}
    number = 0
    for hand in labels["hands"]:
        own_rows = next(rows[hand["split"]])
        where = {"source": hand.pop("source"), "frame": hand.pop("frame")}
        if hand["image"] in rejected:
            del hand["image"], hand["split"]
            yield {**where, "hands": [], "left_out": [{"reason": REJECTED, **hand}]}
        else:
            del hand["split"]
            yield {**where, "hands": [{"number": number, **hand, "rows": own_rows}]}
            number += 1
    for hand in labels["left_out"]:
        where = {"source": hand.pop("source"), "frame": hand.pop("frame")}
        yield {**where, "left_out": [hand]}
    yield from labels["skipped"]


def _copy_crops(folder: Path, image: str, journal: Journal, number: int) -> None:
    split, _, name = image.split("/")
    for kind in KINDS:
        shutil.copyfile(folder / split / kind / name, journal.crop_path(kind, number))
