"""Hands in images, videos and cameras: from inputs to files, one frame at a time."""

import contextlib
import itertools
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import HandBoxes, boxes_at
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    intrinsics_from_fov,
    is_possible,
)
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.frames import Frame, read_frames
from m3dhmr_jax.predict.given import Given, read_given
from m3dhmr_jax.predict.inputs import Input, find_inputs
from m3dhmr_jax.predict.landmark_file import HandLandmarks, landmarks_at
from m3dhmr_jax.predict.left_out import LeftOut, describe
from m3dhmr_jax.predict.masks import read_masks
from m3dhmr_jax.predict.outputs import ResultWriter, fixed_names
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.result_names import result_names
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.predict.smoothing import HandSmoother
from m3dhmr_jax.predict.tracking import Tracker
from m3dhmr_jax.runtime.files import readable
from m3dhmr_jax.runtime.results_folder import ResultsFolder, check_results_folder, free_folder

# The folder of results if none is given, or the first free one of hands-2, hands-3, ...
DEFAULT_OUT = Path("hands")


class PredictOptions(NamedTuple):
    """Options of one call."""

    images: Sequence[str] = ()
    camera: int | None = None
    boxes: Path | None = None
    landmarks: Path | None = None
    masks: Path | None = None
    # None: estimated.
    handedness: str | None = None
    intrinsics: Float[np.ndarray, "3 3"] | None = None
    # Across the longer side; None: from EXIF, else assumed.
    fov_deg: float | None = None
    # The images are FreiHAND's.
    freihand: bool = False
    # Looks at each hand that its landmarks are averaged over.
    views: int = 1
    track: bool = True
    smooth: bool = False
    mesh_kinds: tuple[str, ...] | None = None
    # Maximum per video or camera.
    frames: int | None = None


class IncompleteError(UserError):
    """Some inputs were skipped; the rest is written."""


def predict_files(
    load: Callable[[], HandMeshPredictor],
    options: PredictOptions,
    out: Path | None = None,
    *,
    replace: bool = False,
) -> None:
    """Writes the hands of every input, and prints the speed.

    `load` is called once all inputs are known to exist. What cannot be read or used is reported at
    once and skipped. Ctrl-C ends a camera's stream.

    Args:
        out: a folder that is new or empty; default: the first such one of hands, hands-2, ...
        replace: `out` may have the results of an earlier call, which are removed first.

    Raises:
        UserError: before anything is written, if an input or a file of boxes or masks is missing or
            invalid, or `out` has other content; IncompleteError at the end, if something was
            skipped.
        DiskFullError, OSError: if the results cannot be written.
    """
    inputs, left_out = find_inputs(options.images, options.camera)
    given = read_given(options.boxes, options.landmarks, options.masks, options.handedness, inputs)
    names = result_names(inputs)
    if out is None:
        if replace:
            raise UserError("--replace needs --out: the folder whose results are replaced")
        out = free_folder(DEFAULT_OUT)
        print(f"results go to {out}")
    fixed = fixed_names(names)
    check_results_folder(out, "predict", fixed, replace=replace)
    predictor = load()
    run = _Run(predictor, options, given)
    with (
        run.bar,
        ResultsFolder(out, "predict", fixed, replace=replace) as folder,
        ResultWriter(folder, names, predictor.hand.faces, options.mesh_kinds) as writer,
    ):
        try:
            for source, name in names.items():
                if name != source.name.replace("/", "_"):
                    run.log(f"{readable(source.source)}: its results are named {name}")
                with run.skip_on_error(source.source):
                    run.predict_input(source, writer)
                writer.end_input()
        except KeyboardInterrupt:
            run.log("stopped")
    run.finish(out, left_out + given.left_out)


class _Run:
    """Progress and counts of one call."""

    def __init__(self, predictor: HandMeshPredictor, options: PredictOptions, given: Given):
        self._predictor, self._options, self._given = predictor, options, given
        self.bar = tqdm.tqdm(unit="frame", dynamic_ncols=True, mininterval=1)
        self._skipped: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._frames = self._hands = self._empty = self._unsure = self._losses = 0
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
        boxes, landmarks = self._given.boxes_of(source), self._given.landmarks_of(source)
        tracker = smoother = None
        if source.is_video and options.track and landmarks is None:
            tracker = Tracker(self._predictor, boxes, options.handedness)
        if source.is_video and options.smooth:
            smoother = HandSmoother(self._predictor.hand.joint_regressor)
        for frame in itertools.islice(read_frames(source, self.log), options.frames):
            with self.skip_on_error(source.source), self._log_warnings(source.source):
                k, camera = choose_intrinsics(frame.image, frame.intrinsics, options)
                if tracker is not None:
                    hands = tracker(frame.image, frame.index, frame.time_s, k)
                else:
                    hands = self._predict_alone(source, frame, boxes, landmarks, k)
                hands = hands._replace(camera_is_assumed=camera == "assumed")
                if smoother is not None:
                    hands = smoother(hands, frame.time_s)
                writer.write(source, frame, hands, camera)
                self._count(hands)
        self._losses += 0 if tracker is None else tracker.losses

    def _predict_alone(
        self,
        source: Input,
        frame: Frame,
        boxes: Mapping[int, HandBoxes] | None,
        landmarks: Mapping[int, HandLandmarks] | None,
        k: Float[np.ndarray, "3 3"],
    ) -> PredictedHands:
        """The hands of a frame, whatever the others show."""
        options = self._options
        boxes_px = landmarks_px = masks = None
        handedness = options.handedness
        if landmarks is not None:
            landmarks_px, handedness = landmarks_at(landmarks, frame.index)
        elif boxes is not None:
            boxes_px, handedness = boxes_at(boxes, frame.index)
        if self._given.masks is not None:
            hands = None if boxes_px is None else len(boxes_px)
            masks = self._read_masks(source, self._given.masks, hands)
        return self._predictor(
            frame.image,
            boxes_px,
            handedness,
            k,
            masks=masks,
            landmarks=landmarks_px,
            freihand=options.freihand,
            views=options.views,
        )

    @contextlib.contextmanager
    def _log_warnings(self, source: str) -> Iterator[None]:
        """Logs each warning about an input once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for text in (f"{source}: {warning.message}" for warning in caught):
            if text not in self._warned:
                self._warned.add(text)
                self.log(text)

    def _read_masks(
        self, source: Input, paths: Mapping[str, Path], hands: int | None
    ) -> np.ndarray | None:
        if hands == 0:
            return None
        if source.name not in paths:
            self.log(f"{source.source}: {self._options.masks} has no mask of it; none used")
            return None
        masks = read_masks(paths[source.name], hands)
        if hands is None and not masks.any():
            self.log(f"{source.source}: its mask is empty; none used")
            return None
        return masks

    def _count(self, hands: PredictedHands) -> None:
        self._frames += 1
        self._hands += len(hands.handedness)
        self._empty += not hands.handedness
        self._unsure += int(hands.is_unsure.sum())
        self.bar.update()
        if self._frames == 1:  # Includes compilation.
            self._first_s = time.monotonic()

    def finish(self, out: Path, left_out: LeftOut) -> None:
        """Prints a summary; raises IncompleteError if something was skipped."""
        print(f"{self._hands} hands written to {readable(out)}")
        if self._empty:
            print(f"no hand found in {self._empty} of {self._frames} images or frames")
        if self._unsure:
            print(f"{self._unsure} hands may be wrong: they are marked is_unsure")
        if self._frames > 1:
            rest_s = time.monotonic() - self._first_s
            print(
                f"{(self._frames - 1) / rest_s:.1f} frames/s from reading to writing, "
                f"after {self._first_s - self._start_s:.1f} s for the first frame"
            )
        if self._losses:
            where = " in its given box" if self._options.boxes else ""
            print(f"a hand was lost {self._losses} times and searched for{where} again")
        if left_out:
            print(f"left out: {describe(left_out.items())}")
        if self._skipped:
            reasons = [
                reason if times == 1 else f"{reason} ({times} frames)"
                for reason, times in self._skipped.items()
            ]
            raise IncompleteError(f"skipped: {'; '.join(reasons[:10])}")


def choose_intrinsics(
    image: Image, from_exif: Float[np.ndarray, "3 3"] | None, options: PredictOptions
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """K of an image, and its origin: "given", "exif" or "assumed"."""
    height, width, _ = image.shape
    if options.intrinsics is not None:
        return options.intrinsics, "given"
    if options.fov_deg is not None:
        return intrinsics_from_fov(options.fov_deg, width, height), "given"
    if from_exif is not None and is_possible(from_exif, width, height):
        return from_exif, "exif"
    return assumed_intrinsics(width, height, freihand=options.freihand), "assumed"
