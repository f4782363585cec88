"""Images, videos and cameras as streams of frames: one at a time, however long the input is."""

import contextlib
import glob
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.runtime.files import user_path
from m3dhmr_jax.runtime.results_folder import is_own_output

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
MAX_FAILURES = 300  # Unreadable frames in a row, after which the rest of a video is skipped.
END_MARGIN = 2  # Some files only estimate their number of frames.
DEFAULT_RATE_HZ = 30.0  # If a camera or a file does not state it.
LogFn = Callable[[str], None]


class Frame(NamedTuple):
    """An image and where it comes from."""

    index: int  # Within its input, from 0.
    time_s: float
    image: Image
    # From the file's EXIF data, if present.
    intrinsics: Float[np.ndarray, "3 3"] | None
    # Frame rate of its video.
    rate_hz: float


class Input(NamedTuple):
    """An image file, a video file, or a camera."""

    name: str  # Output files start with it.
    source: str  # Its name in box files.
    path: Path | None
    camera: int | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video file or a camera."""
        return self.path is None or self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(images: Sequence[str], camera: int | None = None) -> list[Input]:
    """Files as given, those that match patterns, and all images and videos in folders.

    Each file is taken once, and results of earlier calls are left out.

    Raises:
        UserError: if something is missing, or there is no input at all.
    """
    if camera is not None and camera < 0:
        raise UserError(f"--camera {camera} must be 0 or more: cameras are numbered from 0")
    paths = find_paths(images) if images or camera is None else []
    inputs = [Input(path.stem, path.name, path) for path in paths]
    if camera is not None:
        inputs.append(Input(f"camera{camera}", f"camera {camera}", None, camera))
    return inputs


def find_paths(images: Sequence[str]) -> list[Path]:
    """Files as given, those that match patterns, and images and videos in folders, each once.

    Results of earlier calls are left out.

    Raises:
        UserError: if something is missing, or there is nothing at all.
    """
    found = dict.fromkeys(path for image in images for path in _paths_of(image))
    paths = [path for path in found if not is_own_output(path)]
    if not paths:
        raise UserError(
            f"no image or video in {list(images)}: name files, folders or patterns"
            + (f"; {len(found)} are results of earlier calls" if found else "")
        )
    return paths


def _paths_of(image: str) -> list[Path]:
    path = user_path(image)
    if path.is_file():
        return [path]
    if path.is_dir():
        known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        return sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in known)
    matches = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    if not matches:
        raise UserError(f"{image}: no such image, video or folder")
    return matches


def read_frames(source: Input, log: LogFn) -> Iterator[Frame]:
    """The frames, read one by one as they are requested; `log` receives notes on conversions.

    Raises:
        UserError: if it cannot be read, is not an image or video, has no frame, or the camera does
            not open; or, at the end, if frames could not be read.
    """
    return _video_frames(source) if source.is_video else _image_frame(source, log)


def _image_frame(source: Input, log: LogFn) -> Iterator[Frame]:
    assert source.path is not None
    decoded = read_image(source.path)
    if decoded.note:
        log(decoded.note)
    yield Frame(0, 0.0, decoded.image, decoded.intrinsics, DEFAULT_RATE_HZ)


def _video_frames(source: Input) -> Iterator[Frame]:
    with _opened(source) as capture:
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if source.path else 0
        rate_hz, start_s = frame_rate(capture), time.monotonic()
        index = n_read = n_skipped = failures = 0
        while failures < MAX_FAILURES:
            is_read, pixels = capture.read()
            if is_read:
                live_s = time.monotonic() - start_s
                time_s = _time_s(capture, index, rate_hz) if source.path else live_s
                yield Frame(index, time_s, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None, rate_hz)
                n_read, n_skipped, failures = n_read + 1, n_skipped + failures, 0
            elif index >= expected:
                break
            else:
                failures += 1
            index += 1
    if n_read == 0:
        raise UserError(f"{source.source}: no frame could be read")
    if source.path is None:
        raise UserError(f"{source.source} stopped after {n_read} frames: is it still connected?")
    n_skipped += failures if failures > END_MARGIN else 0
    if n_skipped:
        raise UserError(
            f"{source.source}: {n_skipped} corrupted frames were skipped, {n_read} were read"
        )


def _time_s(capture: cv2.VideoCapture, index: int, rate_hz: float) -> float:
    recorded_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return recorded_s if recorded_s > 0 else index / rate_hz


def frame_rate(capture: cv2.VideoCapture) -> float:
    rate_hz = capture.get(cv2.CAP_PROP_FPS)
    return rate_hz if 1 <= rate_hz <= 1000 else DEFAULT_RATE_HZ


@contextlib.contextmanager
def _opened(source: Input) -> Iterator[cv2.VideoCapture]:
    if source.camera is None:
        capture = cv2.VideoCapture(str(source.path))
    else:
        capture = cv2.VideoCapture(source.camera)
    try:
        if not capture.isOpened():
            raise UserError(
                f"{source.source} does not open: is it connected, not in use, and readable by you?"
                if source.path is None
                else f"{source.path} is not a readable video, or has no frames"
            )
        yield capture
    finally:
        capture.release()
