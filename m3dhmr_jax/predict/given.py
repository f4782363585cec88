"""What the user says about the hands of the inputs, matched with them: boxes or landmarks, masks.

What matches nothing is counted, as it is often a mistake.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import BoxesByFile, HandBoxes, read_boxes
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.landmark_file import HandLandmarks, LandmarksByFile, read_landmarks
from m3dhmr_jax.predict.left_out import LeftOut, Reason
from m3dhmr_jax.predict.masks import find_masks


class Given(NamedTuple):
    """The hands that files describe; at most one of boxes and landmarks."""

    boxes: BoxesByFile | None
    landmarks: LandmarksByFile | None
    # By the name of the input.
    masks: dict[str, Path] | None
    # What matches nothing, and inputs about which nothing is said.
    left_out: LeftOut

    def boxes_of(self, source: Input) -> Mapping[int, HandBoxes] | None:
        return None if self.boxes is None else self.boxes.get(source.file_name, {})

    def landmarks_of(self, source: Input) -> Mapping[int, HandLandmarks] | None:
        return None if self.landmarks is None else self.landmarks.get(source.file_name, {})


def read_given(
    boxes: Path | None,
    landmarks: Path | None,
    masks: Path | None,
    handedness: str | None,
    inputs: Sequence[Input],
) -> Given:
    """Reads the files, and matches them with the inputs.

    Raises:
        UserError: if a file or folder is missing or invalid, nothing in it matches an input, or it
            is ambiguous which of several inputs of the same name is meant.
    """
    if boxes and landmarks:
        raise UserError(
            f"--boxes {boxes} and --landmarks {landmarks}: give one of them; landmarks need no "
            "boxes"
        )
    left_out = LeftOut()
    boxes_by_file = boxes and read_boxes(boxes, handedness)
    landmarks_by_file = landmarks and read_landmarks(landmarks, handedness)
    if boxes and boxes_by_file is not None:
        left_out += _unmatched(boxes, boxes_by_file, inputs)
    if landmarks and landmarks_by_file is not None:
        left_out += _unmatched(landmarks, landmarks_by_file, inputs)
    found_masks = None
    if masks is not None:
        found_masks = find_masks(masks, inputs)
        left_out += _unmatched_masks(masks, found_masks, inputs)
    return Given(boxes_by_file, landmarks_by_file, found_masks, left_out)


def _unmatched(path: Path, rows: BoxesByFile | LandmarksByFile, inputs: Sequence[Input]) -> LeftOut:
    """Counts rows without an input, and inputs without a row; each row is a hand."""
    by_name = {each.file_name: each for each in inputs}
    if not rows.keys() & by_name.keys():
        raise UserError(
            f"{path} describes hands of {', '.join(list(rows)[:3])}, and none of these is among "
            'the inputs: its column "image" is a file name without folders'
        )
    repeated = Counter(each.file_name for each in inputs)
    ambiguous = sorted(name for name in rows if repeated[name] > 1)
    if ambiguous:
        raise UserError(
            f"{path} describes hands of {ambiguous[0]}, and {repeated[ambiguous[0]]} inputs in "
            "different folders have that name: take one folder at a time"
        )
    left_out = LeftOut()
    for name, frames in rows.items():
        n_rows = sum(len(hands.handedness) for hands in frames.values())
        if name not in by_name:
            left_out[_row(path, "whose image is not among the inputs")] += n_rows
        elif not by_name[name].is_video:
            n_used = len(frames[0].handedness) if 0 in frames else 0
            left_out[_row(path, "for a later frame of a photo, which has only frame 0")] += (
                n_rows - n_used
            )
    for each in inputs:
        if each.file_name not in rows:
            kind = "video" if each.is_video else "photo"
            left_out[_without(kind, f"without a row in {path.name}")] += 1
    if all(0 not in rows[name] and not by_name[name].is_video for name in rows.keys() & by_name):
        raise UserError(
            f"{path} describes later frames of photos only, and a photo has only frame 0: its "
            'column "frame" counts from 0'
        )
    return +left_out


def _unmatched_masks(folder: Path, masks: Mapping[str, Path], inputs: Sequence[Input]) -> LeftOut:
    used = set(masks.values())
    left_out = LeftOut()
    n_unused = sum(path not in used for path in folder.rglob("*.png"))
    left_out[
        Reason(f"mask in {folder.name} of no input", f"masks in {folder.name} of no input")
    ] = n_unused
    left_out[_without("photo", f"without a mask in {folder.name}")] = len(inputs) - len(masks)
    return +left_out


def _row(path: Path, which: str) -> Reason:
    return Reason(f"row of {path.name} {which}", f"rows of {path.name} {which}")


def _without(kind: str, what: str) -> Reason:
    return Reason(f"{kind} {what}", f"{kind}s {what}")
