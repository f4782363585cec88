"""Labels photos and videos, one frame at a time; see `m3dhmr_jax.labelling.journal`."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import hand_id
from m3dhmr_jax.labelling.framing import frame_hand
from m3dhmr_jax.labelling.journal import Entry, Journal, check_out, open_journal
from m3dhmr_jax.labelling.layout import write_layout
from m3dhmr_jax.labelling.quality import THRESHOLDS, TOO_SMALL, reason_to_leave_out
from m3dhmr_jax.labelling.sources import Source, find_sources, fingerprint, frames_of
from m3dhmr_jax.labelling.split import BY_ORDER, check_split, split_hands
from m3dhmr_jax.labelling.teacher import LabelledHand, Teacher
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.frames import Frame
from m3dhmr_jax.predict.run import PredictOptions, choose_intrinsics
from m3dhmr_jax.runtime.files import explain_disk_full
from m3dhmr_jax.synthetic.example import SPLITS, annotation_rows
from m3dhmr_jax.synthetic.imaging import encode_image, encode_mask

JPEG_QUALITY = 95
DECIMALS = 4  # Of pixels and fractions in `labels.json`.


class LabelOptions(NamedTuple):
    """Options of one call."""

    photos: Sequence[str]
    # Side of all hands and camera; the other fields are not used.
    images: PredictOptions = PredictOptions()
    # Frames of each second of video.
    rate_hz: float = 5.0
    # Fraction of the hands for evaluation.
    split: float = 0.1


class Progress(NamedTuple):
    """How far the journal has come."""

    # Sources of which all frames are in it.
    sources: int = 0
    # Frame of the next source that was processed last.
    frame: int = -1
    hands: int = 0


def label_files(load: Callable[[], Teacher], options: LabelOptions, out: Path) -> list[str]:
    """Writes a set of all hands that the teacher is sure of, in FreiHAND's layout.

    An interrupted call is continued by the same one. `load` is called once all photos are known to
    exist.

    Returns:
        Why files were skipped; all others are labelled.

    Raises:
        UserError: for a number out of range, if a photo is missing, or if `out` holds other files
            or another set; also if no hand was kept, and nothing is written then.
        DiskFullError: if the disk is full.
    """
    check_split(options.split)
    if not options.rate_hz > 0:
        raise UserError(f"--rate {options.rate_hz:g} must be positive: frames of each second")
    sources = find_sources(options.photos)
    check_out(out)
    teacher = load()
    settings = settings_of(options, sources, teacher)
    with explain_disk_full(out), open_journal(out, settings) as journal:
        progress = read_progress(journal.entries())
        if progress != Progress():
            print(f"continuing after {progress.hands} hands of {progress.sources} files")
        with tqdm.tqdm(unit="image", dynamic_ncols=True, mininterval=1) as bar:
            _label(teacher, options, sources, journal, progress, bar)
        return _finish(out, journal, options.split, settings)


def settings_of(
    options: LabelOptions, sources: Sequence[Source], teacher: Teacher
) -> dict[str, Any]:
    """What a set depends on."""
    k = options.images.intrinsics
    return {
        "files": len(sources),
        "files_sha256": fingerprint(sources),
        "hand": hand_id(teacher.hand),
        "handedness": options.images.handedness,
        "K": None if k is None else k.tolist(),
        "fov_deg": options.images.fov_deg,
        "rate_hz": options.rate_hz,
        "split": options.split,
        "thresholds": dict(THRESHOLDS),
    }


def read_progress(entries: Iterator[Entry]) -> Progress:
    """How far these entries have come."""
    progress = Progress()
    for entry in entries:
        if "hands" in entry:
            hands = progress.hands + len(entry["hands"])
            progress = progress._replace(frame=entry["frame"], hands=hands)
        else:
            progress = Progress(progress.sources + 1, hands=progress.hands)
    return progress


def _label(
    teacher: Teacher,
    options: LabelOptions,
    sources: Sequence[Source],
    journal: Journal,
    progress: Progress,
    bar: tqdm.tqdm,
) -> None:
    """Adds all frames after `progress` to the journal."""

    def log(text: str) -> None:
        bar.write(text, file=sys.stderr)

    number = progress.hands
    for source in sources[progress.sources :]:
        end: Entry = {"source": source.name}
        try:
            for frame in frames_of(source, options.rate_hz, log):
                bar.update()
                if frame.index <= progress.frame:
                    continue
                entry = label_frame(teacher, options, source, frame, journal, number)
                number += len(entry["hands"])
                journal.append(entry)
        except UserError as error:
            end["reason"] = str(error)
            log(f"skipped: {error}")
        journal.append(end)
        progress = Progress(hands=number)


def label_frame(
    teacher: Teacher,
    options: LabelOptions,
    source: Source,
    frame: Frame,
    journal: Journal,
    first: int,
) -> Entry:
    """The entry of a frame, whose hands get the numbers from `first` on; writes their crops.

    Raises:
        UserError: if the given K belongs to an image of another size.
    """
    k, camera = choose_intrinsics(frame.image, frame.intrinsics, options.images)
    found, too_small = teacher(frame.image, k, options.images.handedness)
    kept: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = [{"reason": TOO_SMALL}] * too_small
    for hand in found:
        reason = reason_to_leave_out(hand.measures)
        described = describe(hand)
        if reason is None:
            number = first + len(kept)
            rows = _write_crop(journal, number, frame.image, hand, k, teacher.hand.faces)
            kept.append({"number": number, **described, "camera": camera, "rows": rows})
        else:
            left_out.append({"reason": reason, **described})
    where = {"source": source.name, "frame": frame.index}
    return {**where, "group": source.group, "hands": kept, "left_out": left_out}


def describe(hand: LabelledHand) -> dict[str, Any]:
    """What `labels.json` says of a hand."""
    measures = {name: round(value, DECIMALS) for name, value in hand.measures._asdict().items()}
    return {
        "box": np.round(hand.box_px, 1).tolist(),
        "handedness": hand.handedness,
        "mirrored": hand.handedness == "left",
        **measures,
    }


def _write_crop(
    journal: Journal,
    number: int,
    image: Image,
    hand: LabelledHand,
    k: np.ndarray,
    faces: np.ndarray,
) -> tuple[str, ...]:
    """Writes a hand's image and mask; returns its annotation rows."""
    is_left = hand.handedness == "left"
    framed = frame_hand(image, k, hand.verts_m, hand.joints_m, faces, is_left=is_left)
    journal.crop_path("rgb", number).write_bytes(encode_image(framed.image, JPEG_QUALITY))
    journal.crop_path("mask", number).write_bytes(encode_mask(framed.mask))
    return annotation_rows(framed.intrinsics, framed.joints_m, framed.verts_m)


class Summary(NamedTuple):
    """What the journal holds, without the labels; the lists have one item for each hand."""

    groups: list[str]
    # Number of its image.
    images: list[int]
    looked_at: dict[str, int]
    left_out: Counter[str]
    skipped: list[str]


def summarise(entries: Iterator[Entry]) -> Summary:
    """One pass over the entries."""
    summary = Summary([], [], {"images": 0, "images_without_hands": 0}, Counter(), [])
    for entry in entries:
        if "hands" in entry:
            n = len(entry["hands"])
            summary.groups.extend([entry["group"]] * n)
            summary.images.extend([summary.looked_at["images"]] * n)
            summary.looked_at["images"] += 1
            summary.looked_at["images_without_hands"] += not (entry["hands"] or entry["left_out"])
            summary.left_out.update(hand["reason"] for hand in entry["left_out"])
        elif "reason" in entry:
            summary.skipped.append(entry["reason"])
    return summary


def _finish(out: Path, journal: Journal, split: float, settings: Mapping[str, Any]) -> list[str]:
    """Writes the layout and prints a summary; returns why files were skipped."""
    summary = summarise(journal.entries())
    try:
        if not summary.groups:
            raise UserError(_nothing_kept(summary))
        is_evaluation, how = split_hands(summary.groups, summary.images, split)
    except UserError:
        journal.remove()
        raise
    about = {"settings": settings, "split_by": how}
    counts = write_layout(out, journal, is_evaluation, about, summary.looked_at)
    print_summary(out, counts)
    if how == BY_ORDER:
        print(
            "all hands are of one video or folder, whose last images are for evaluation: they "
            "resemble those for training, so scores will flatter. Label several for a fair one"
        )
    return summary.skipped


def print_summary(out: Path, counts: Mapping[str, Any]) -> None:
    """Prints the counts of `labels.json`."""
    n_train, n_test = (counts[split] for split in SPLITS)
    print(f"{n_train + n_test} hands of {counts['images']} images are labelled in {out}")
    print(
        f"{n_train} for training, {n_test} for evaluation; {counts['mirrored']} left hands mirrored"
    )
    for reason, n in counts["left_out"].items():
        print(f"left out: {n} hands, {reason}")


def _nothing_kept(summary: Summary) -> str:
    n, skipped = summary.looked_at["images"], len(summary.skipped)
    looked = f"{n} images were looked at" + (f", {skipped} files skipped" if skipped else "")
    if not summary.left_out:
        return f"no hand was found: {looked}; nothing was written"
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.left_out.items()))
    return f"no hand was kept: {looked}; left out: {reasons}; nothing was written"
