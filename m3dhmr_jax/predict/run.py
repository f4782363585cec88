"""Hands in images, videos and cameras: from inputs to files, one frame at a time."""

import contextlib
import itertools
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import BoxesByFile, read_boxes
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    intrinsics_from_fov,
    intrinsics_mismatch,
)
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.frames import Frame, Input, find_inputs, read_frames
from m3dhmr_jax.predict.masks import find_masks, read_masks
from m3dhmr_jax.predict.outputs import ResultWriter
from m3dhmr_jax.predict.predictor import HandMeshPredictor, PredictedHands
from m3dhmr_jax.predict.smoothing import HandSmoother
from m3dhmr_jax.predict.tracking import Tracker
from m3dhmr_jax.runtime.files import explain_disk_full


class PredictOptions(NamedTuple):
    """Options of one call."""

    images: Sequence[str] = ()
    camera: int | None = None
    boxes: Path | None = None
    masks: Path | None = None
    handedness: str = "right"
    intrinsics: Float[np.ndarray, "3 3"] | None = None
    # Across the longer side; None: from EXIF, else assumed.
    fov_deg: float | None = None
    # The images are FreiHAND's.
    freihand: bool = False
    track: bool = True
    smooth: bool = False
    mesh_kinds: tuple[str, ...] | None = None
    # Maximum per video or camera.
    frames: int | None = None


class IncompleteError(UserError):
    """Some inputs were skipped; the rest is written."""


def predict_files(
    load: Callable[[], HandMeshPredictor], options: PredictOptions, out: Path
) -> None:
    """Writes the hands of every input, and prints the speed.

    `load` is called once all inputs are known to exist. What cannot be read or used is reported at
    once and skipped. Ctrl-C ends a camera's stream.

    Raises:
        UserError: before anything is written, if an input or a file of boxes or masks is missing or
            invalid; IncompleteError at the end, if something was skipped.
        DiskFullError: if there is no room for the results.
    """
    inputs = find_inputs(options.images, options.camera)
    boxes = _boxes(options, inputs)
    masks = None if options.masks is None else find_masks(options.masks, inputs)
    predictor = load()
    run = _Run(predictor, options, boxes, masks)
    with (
        explain_disk_full(out),
        run.bar,
        ResultWriter(out, predictor.hand.faces, options.mesh_kinds) as writer,
    ):
        try:
            for source in inputs:
                with run.skip_on_error(source.source):
                    run.predict_input(source, writer)
                writer.end_input()
        except KeyboardInterrupt:
            run.log("stopped")
    run.finish(out)


def _boxes(options: PredictOptions, inputs: Sequence[Input]) -> BoxesByFile | None:
    if options.boxes is None:
        return None
    boxes = read_boxes(options.boxes, options.handedness)
    if not boxes.keys() & {source.source for source in inputs}:
        raise UserError(
            f"{options.boxes} contains boxes of {', '.join(list(boxes)[:3])}, and none of these is "
            'among the inputs: its column "image" is a file name without folders'
        )
    return boxes


class _Run:
    """Progress and counts of one call."""

    def __init__(
        self,
        predictor: HandMeshPredictor,
        options: PredictOptions,
        boxes: BoxesByFile | None,
        masks: dict[str, Path] | None,
    ):
        self._predictor, self._options = predictor, options
        self._boxes, self._masks = boxes, masks
        self.bar = tqdm.tqdm(unit="frame", dynamic_ncols=True, mininterval=1)
        self._skipped: Counter[str] = Counter()
        self._frames = self._hands = self._losses = 0
        self._start_s = self._first_s = time.monotonic()

    def log(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)

    @contextlib.contextmanager
    def skip_on_error(self, source: str) -> Iterator[None]:
        """Reports an error about this input or one of its frames, and continues with the next.

        An error that all frames of a video have in common is reported once.
        """
        try:
            yield
        except UserError as error:
            text = str(error)
            reason = text if source in text else f"{source}: {text}"
            self._skipped[reason] += 1
            if self._skipped[reason] == 1:
                self.log(f"skipped: {reason}")

    def predict_input(self, source: Input, writer: ResultWriter) -> None:
        """All frames of one input."""
        options = self._options
        given = None if self._boxes is None else self._boxes.get(source.source, {})
        track = options.track and source.is_video
        tracker = Tracker(given, options.handedness, track=track)
        smoother = None
        if options.smooth and source.is_video:
            smoother = HandSmoother(self._predictor.hand.joint_regressor)
        for frame in itertools.islice(read_frames(source, self.log), options.frames):
            with self.skip_on_error(source.source):
                hands, camera = self._predict_frame(source, frame, tracker)
                if smoother is not None:
                    hands = smoother(hands, frame.time_s)
                writer.write(source, frame, hands, camera)
                self._count(len(hands.handedness))
        self._losses += tracker.losses

    def _predict_frame(
        self, source: Input, frame: Frame, tracker: Tracker
    ) -> tuple[PredictedHands, str]:
        height, width, _ = frame.image.shape
        k, camera = choose_intrinsics(frame.image, frame.intrinsics, self._options)
        boxes_px, sides = tracker.boxes_for(frame.index)
        if self._masks is None:
            masks = None
        else:
            masks = self._read_masks(source, None if boxes_px is None else len(boxes_px))
            if boxes_px is None and masks is not None:  # As many hands as masks.
                sides = self._options.handedness
        with warnings.catch_warnings(record=self._masks is not None) as caught:
            if caught is not None:
                warnings.simplefilter("always")
            hands = self._predictor(
                frame.image, boxes_px, sides, k, masks=masks, freihand=self._options.freihand
            )
        for warning in caught or ():
            self.log(f"{source.source}: {warning.message}")
        tracker.update(hands, width, height)
        return hands._replace(camera_is_assumed=camera == "assumed"), camera

    def _read_masks(self, source: Input, hands: int | None) -> np.ndarray | None:
        assert self._masks is not None
        if hands == 0:
            return None
        if source.name not in self._masks:
            self.log(f"{source.source}: {self._options.masks} has no mask of it; none used")
            return None
        return read_masks(self._masks[source.name], hands)

    def _count(self, hands: int) -> None:
        self._frames += 1
        self._hands += hands
        self.bar.update()
        if self._frames == 1:  # Includes compilation.
            self._first_s = time.monotonic()

    def finish(self, out: Path) -> None:
        """Prints a summary; raises IncompleteError if something was skipped."""
        print(f"{self._hands} hands written to {out}")
        if self._frames > 1:
            rest_s = time.monotonic() - self._first_s
            print(
                f"{(self._frames - 1) / rest_s:.1f} frames/s from reading to writing, "
                f"after {self._first_s - self._start_s:.1f} s for the first frame"
            )
        if self._losses:
            print(f"a hand was lost {self._losses} times and searched for in its given box")
        if self._skipped:
            reasons = [
                reason if times == 1 else f"{reason} ({times} frames)"
                for reason, times in self._skipped.items()
            ]
            raise IncompleteError(f"skipped: {'; '.join(reasons[:10])}")


def choose_intrinsics(
    image: Image, from_exif: Float[np.ndarray, "3 3"] | None, options: PredictOptions
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """K of an image, and its origin: "given", "exif" or "assumed".

    Raises:
        UserError: if the given K belongs to an image of another size.
    """
    height, width, _ = image.shape
    if options.intrinsics is not None:
        reason = intrinsics_mismatch(options.intrinsics, width, height)
        if reason:
            raise UserError(reason)
        return options.intrinsics, "given"
    if options.fov_deg is not None:
        return intrinsics_from_fov(options.fov_deg, width, height), "given"
    if from_exif is not None:
        return from_exif, "exif"
    return assumed_intrinsics(width, height, freihand=options.freihand), "assumed"
