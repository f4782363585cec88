"""Hands in photos, videos and cameras: from inputs to files, one frame at a time."""

import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
from jaxtyping import Float

from m3dhmr_jax.predict.boxes import TargetsOf, read_boxes
from m3dhmr_jax.predict.cameras import assumed_intrinsics, intrinsics_from_field, misfit
from m3dhmr_jax.predict.frames import Frame, Input, find_inputs, frames_of
from m3dhmr_jax.predict.outputs import Results
from m3dhmr_jax.predict.predictor import HandMeshPredictor, PredictedHands
from m3dhmr_jax.predict.smoothing import HandSmoother
from m3dhmr_jax.predict.tracking import Tracker


class Wishes(NamedTuple):
    """What a call is to do."""

    images: Sequence[str] = ()
    camera: int | None = None
    boxes: Path | None = None
    handedness: str = "right"
    intrinsics: Float[np.ndarray, "3 3"] | None = None
    field_deg: float | None = None  # Across the longer side; None: EXIF, else assumed.
    follows: bool = True
    smooths: bool = False
    mesh_kinds: tuple[str, ...] | None = None
    frames: int | None = None  # At most so many of each video or camera.


class IncompleteError(ValueError):
    """Something was left out; the rest is written."""


def predict_files(load: Callable[[], HandMeshPredictor], wishes: Wishes, out: Path) -> None:
    """Writes what was found in every input into `out`, and prints how fast that went.

    `load` is called when the inputs are known to be there. What cannot be read or used is told at
    once and left out. Ctrl-C ends a camera.

    Raises:
        FileNotFoundError, ValueError: before anything is written, if an input or a box's file is
            missing or wrong; IncompleteError at the end, if something was left out.
    """
    inputs = find_inputs(wishes.images, wishes.camera)
    targets = _targets(wishes, inputs)
    predictor = load()
    run = _Run(predictor, wishes)
    with Results(out, predictor.hand.faces, wishes.mesh_kinds) as results, run.bar:
        try:
            for source in inputs:
                with run.telling_of(source.source):
                    run.predict_input(source, targets, results)
                results.end_input()
        except KeyboardInterrupt:
            run.say("stopped")
    run.conclude(out)


def _targets(wishes: Wishes, inputs: Sequence[Input]) -> TargetsOf | None:
    if wishes.boxes is None:
        return None
    targets = read_boxes(wishes.boxes, wishes.handedness)
    if not targets.keys() & {source.source for source in inputs}:
        raise ValueError(
            f"{wishes.boxes}: its boxes are of {', '.join(list(targets)[:3])}, and none of these "
            'is among the inputs: its "image" is the name of a file, without folder'
        )
    return targets


class _Run:
    """Counts and clocks of one call."""

    def __init__(self, predictor: HandMeshPredictor, wishes: Wishes):
        self._predictor, self._wishes = predictor, wishes
        self.bar = tqdm.tqdm(unit="frame", dynamic_ncols=True, mininterval=1)
        self._left_out: Counter[str] = Counter()
        self._frames = self._hands = self._losses = 0
        self._start_s = self._first_s = time.monotonic()

    def say(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    @contextlib.contextmanager
    def telling_of(self, source: str) -> Iterator[None]:
        """Turns an error about this input or one of its frames into a line, and goes on.

        What all frames of a video have in common is told once.
        """
        try:
            yield
        except (ValueError, OSError) as error:
            text = str(error)
            reason = text if source in text else f"{source}: {text}"
            self._left_out[reason] += 1
            if self._left_out[reason] == 1:
                self.say(f"left out: {reason}")

    def predict_input(self, source: Input, targets: TargetsOf | None, results: Results) -> None:
        """All frames of one input."""
        wishes = self._wishes
        given = None if targets is None else targets.get(source.source, {})
        tracker = Tracker(given, wishes.handedness, follows=wishes.follows and source.is_moving)
        smoother = HandSmoother(self._predictor.hand.joint_regressor) if wishes.smooths else None
        for frame in itertools.islice(frames_of(source, self.say), wishes.frames):
            with self.telling_of(source.source):
                hands, camera = self._predict_frame(frame, tracker)
                if smoother is not None and source.is_moving:
                    hands = smoother(hands, frame.time_s)
                results.write(source, frame, hands, camera)
                self._count(len(hands.is_left))
        self._losses += tracker.losses

    def _predict_frame(self, frame: Frame, tracker: Tracker) -> tuple[PredictedHands, str]:
        height, width, _ = frame.image.shape
        k, camera = _camera(self._wishes, frame)
        reason = misfit(k, width, height) if camera == "given" else ""
        if reason:
            raise ValueError(reason)
        boxes_px, sides = tracker.look_at(frame.index)
        hands = self._predictor(frame.image, boxes_px, sides, k)
        tracker.saw(hands, width, height)
        return hands._replace(camera_is_assumed=camera == "assumed"), camera

    def _count(self, hands: int) -> None:
        self._frames += 1
        self._hands += hands
        self.bar.update()
        if self._frames == 1:  # It has waited for the compiler.
            self._first_s = time.monotonic()

    def conclude(self, out: Path) -> None:
        """Prints what was done; raises IncompleteError if something was left out."""
        print(f"{self._hands} hands written to {out}")
        if self._frames > 1:
            rest_s = time.monotonic() - self._first_s
            print(
                f"{(self._frames - 1) / rest_s:.1f} frames/s from reading to writing, "
                f"after {self._first_s - self._start_s:.1f} s for the first frame"
            )
        if self._losses:
            print(f"{self._losses} times a hand was lost and looked for where it was given")
        if self._left_out:
            reasons = [
                reason if times == 1 else f"{reason} ({times} frames)"
                for reason, times in self._left_out.items()
            ]
            raise IncompleteError(f"left out: {'; '.join(reasons[:10])}")


def _camera(wishes: Wishes, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], str]:
    """K of a frame, and whether it is given, told by EXIF, or assumed."""
    height, width, _ = frame.image.shape
    if wishes.intrinsics is not None:
        return wishes.intrinsics, "given"
    if wishes.field_deg is not None:
        return intrinsics_from_field(wishes.field_deg, width, height), "given"
    if frame.intrinsics is not None:
        return frame.intrinsics, "exif"
    return assumed_intrinsics(width, height), "assumed"
