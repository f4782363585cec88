"""Photos, videos and cameras as streams of frames: one at a time, however long the input is."""

import contextlib
import glob
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.crops import Photo
from m3dhmr_jax.predict.images import read_photo

PHOTO_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
MOST_FAILURES = 300  # Unreadable frames in a row, after which a video is given up.
END_MARGIN = 2  # Some files only estimate how many frames they have.
DEFAULT_RATE_HZ = 30.0  # Where a camera or a file does not tell.
Say = Callable[[str], None]


class Frame(NamedTuple):
    """A picture and where it comes from."""

    index: int  # Within its input, from 0.
    time_s: float
    image: Photo
    intrinsics: Float[np.ndarray, "3 3"] | None  # If its file tells.
    rate_hz: float  # Of the video that it is of.


class Input(NamedTuple):
    """A photo, a video file, or a camera."""

    name: str  # Results are named after it.
    source: str  # As the boxes' file names it.
    path: Path | None
    camera: int | None = None

    @property
    def is_moving(self) -> bool:
        return self.path is None or self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(images: Sequence[str], camera: int | None = None) -> list[Input]:
    """Files as they are given, those that patterns match, and the photos and videos of folders.

    Raises:
        FileNotFoundError: if something is not there, or there is nothing at all.
        ValueError: if two have the same name, as their results would.
    """
    paths = [path for image in images for path in _paths_of(image)]
    inputs = [Input(path.stem, path.name, path) for path in paths]
    if camera is not None:
        inputs.append(Input(f"camera{camera}", f"camera {camera}", None, camera))
    if not inputs:
        raise FileNotFoundError(
            f"no photo or video in {list(images)}: name files, folders or patterns, or a --camera"
        )
    counts = Counter(each.name for each in inputs)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(
            f"several photos or videos are named {', '.join(twice)}, and results are named after "
            "them: use one folder at a time, or another name"
        )
    return inputs


def _paths_of(image: str) -> list[Path]:
    path = Path(image)
    if path.is_file():
        return [path]
    if path.is_dir():
        known = PHOTO_SUFFIXES | VIDEO_SUFFIXES
        return sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in known)
    matches = sorted(p for p in map(Path, glob.glob(image, recursive=True)) if p.is_file())
    if not matches:
        raise FileNotFoundError(f"{image}: no such photo, video or folder of them")
    return matches


def frames_of(source: Input, say: Say) -> Iterator[Frame]:
    """The frames, read as they are asked for; `say` is told of conversions.

    Raises:
        ValueError: if it is no image or video, has no frame, or a camera does not open; or, at the
            end, if frames could not be read.
        OSError: if a file cannot be read.
    """
    if source.is_moving:
        return _moving_frames(source)
    return _photo(source, say)


def _photo(source: Input, say: Say) -> Iterator[Frame]:
    assert source.path is not None
    photo = read_photo(source.path)
    if photo.note:
        say(photo.note)
    yield Frame(0, 0.0, photo.image, photo.intrinsics, DEFAULT_RATE_HZ)


def _moving_frames(source: Input) -> Iterator[Frame]:
    with _opened(source) as capture:
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if source.path else 0
        rate_hz, start_s = frame_rate(capture), time.monotonic()
        index = found = broken = failures = 0
        while failures < MOST_FAILURES:
            is_read, pixels = capture.read()
            if is_read:
                live_s = time.monotonic() - start_s
                time_s = _time_s(capture, index, rate_hz) if source.path else live_s
                yield Frame(index, time_s, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None, rate_hz)
                found, broken, failures = found + 1, broken + failures, 0
            elif index >= expected:
                break
            else:
                failures += 1
            index += 1
    if found == 0:
        raise ValueError(f"{source.source}: no frame could be read from it")
    if source.path is None:
        raise ValueError(f"{source.source} stopped after {found} frames: is it still connected?")
    broken += failures if failures > END_MARGIN else 0
    if broken:
        raise ValueError(
            f"{source.source}: {broken} frames could not be read and were left out, {found} were"
        )


def _time_s(capture: cv2.VideoCapture, index: int, rate_hz: float) -> float:
    told_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return told_s if told_s > 0 else index / rate_hz


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
            raise ValueError(
                f"{source.source} does not open: is it connected, free, and yours to read?"
                if source.path is None
                else f"{source.path}: not a video that can be read, or one without frames"
            )
        yield capture
    finally:
        capture.release()
