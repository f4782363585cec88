"""Images, videos and cameras as streams of frames: one at a time, however long the input is."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.file_kinds import HEAD_BYTES, VIDEO, kind_of, why_not_read
from m3dhmr_jax.predict.images import (
    count_frames,
    decode_frame,
    open_image,
    read_content,
    read_image,
)
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.runtime.files import readable

MAX_FAILURES = 300  # Unreadable frames in a row, after which the rest of a video is skipped.
END_MARGIN = 2  # Some files only estimate their number of frames.
DEFAULT_RATE_HZ = 30.0  # If a camera or a file does not state it.
MAX_RATE_HZ = 960.0  # Of phones; what is above is the clock of a file without a constant rate.
# Browsers show frames that are to last no longer than the first for the second.
NO_DURATION_S, DEFAULT_DURATION_S = 0.01, 0.1
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


def read_frames(source: Input, log: LogFn) -> Iterator[Frame]:
    """The frames, read one by one as they are requested; `log` receives notes on conversions.

    Raises:
        UserError: if it cannot be read, is not an image or video, has no frame, or the camera does
            not open; or, at the end, if frames could not be read.
    """
    if not source.is_video:
        return _image_frame(source, log)
    if source.path is not None and _kind(source.path) not in (None, VIDEO):
        return _moving_image_frames(source, source.path, log)
    return _video_frames(source)


def _kind(path: Path) -> str | None:
    return kind_of(_head(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise UserError(f"{readable(path)} cannot be read: {error.strerror}") from error


def _image_frame(source: Input, log: LogFn) -> Iterator[Frame]:
    assert source.path is not None
    decoded = read_image(source.path)
    if decoded.note:
        log(decoded.note)
    yield Frame(0, 0.0, decoded.image, decoded.intrinsics, DEFAULT_RATE_HZ)


def _moving_image_frames(source: Input, path: Path, log: LogFn) -> Iterator[Frame]:
    """Of GIF, WebP, PNG and AVIF, each at the sum of the durations before it."""
    opened = open_image(read_content(path), readable(path))
    # Some files show their first image only where moving ones are not supported.
    first = int(getattr(opened.pillow, "default_image", False))
    n_frames, time_s = count_frames(opened) - first, 0.0
    for index in range(n_frames):
        try:
            opened.pillow.seek(first + index)
            decoded = decode_frame(opened)
        except (EOFError, OSError, SyntaxError, ValueError) as error:
            raise UserError(
                f"{source.source}: only {index} of its {n_frames} frames can be read; {error}"
            ) from error
        if decoded.note and index == 0:
            log(decoded.note)
        duration_s = float(opened.pillow.info.get("duration") or 0) / 1000
        if duration_s <= NO_DURATION_S:
            duration_s = DEFAULT_DURATION_S
        yield Frame(index, time_s, decoded.image, decoded.intrinsics, 1 / duration_s)
        time_s += duration_s


def _video_frames(source: Input) -> Iterator[Frame]:
    with _opened(source) as capture:
        expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if source.path else 0
        rate_hz, start_s = frame_rate(capture), time.monotonic()
        index = last_index = n_read = n_skipped = failures = 0
        time_s = 0.0
        while failures < MAX_FAILURES:
            is_read, pixels = capture.read()
            if is_read:
                live_s = time.monotonic() - start_s
                time_s = _time_s(capture, index, rate_hz) if source.path else live_s
                yield Frame(index, time_s, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None, rate_hz)
                n_read, n_skipped, failures = n_read + 1, n_skipped + failures, 0
                last_index = index
            elif index >= expected:
                break
            else:
                failures += 1
            index += 1
        n_missing = _n_missing(capture, last_index, time_s, rate_hz) if source.path else 0
    if n_read == 0:
        raise UserError(f"{source.source}: no frame could be read")
    if source.path is None:
        raise UserError(f"{source.source} stopped after {n_read} frames: is it still connected?")
    n_skipped += n_missing if n_missing > END_MARGIN else 0
    if n_skipped:
        raise UserError(
            f"{source.source}: {n_skipped} corrupted frames were skipped, {n_read} were read"
        )


def _n_missing(capture: cv2.VideoCapture, last_index: int, last_s: float, rate_hz: float) -> int:
    """How many frames are missing after the last one that was read.

    By the duration, as many files do not count their frames: what they state is the product of
    duration and rate, and the rate may be that of a clock.
    """
    count, stated_hz = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    if not (count > 0 and stated_hz > 0):
        return 0
    frame_s = last_s / last_index if last_index else 1 / rate_hz
    return round((count / stated_hz - last_s) / frame_s) - 1


def _time_s(capture: cv2.VideoCapture, index: int, rate_hz: float) -> float:
    recorded_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    return recorded_s if recorded_s > 0 else index / rate_hz


def frame_rate(capture: cv2.VideoCapture) -> float:
    rate_hz = capture.get(cv2.CAP_PROP_FPS)
    return rate_hz if 1 <= rate_hz <= MAX_RATE_HZ else DEFAULT_RATE_HZ


@contextlib.contextmanager
def _opened(source: Input) -> Iterator[cv2.VideoCapture]:
    with contextlib.ExitStack() as stack:
        if source.path is not None:
            reason = _why_no_video(source.path)
            address = _address(source.path, stack)
            capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG)
        else:
            assert source.camera is not None
            reason = "does not open: is it connected, not in use, and readable by you?"
            capture = cv2.VideoCapture(source.camera)
        stack.callback(capture.release)
        if not capture.isOpened():
            raise UserError(f"{source.source} {reason}")
        yield capture


def _why_no_video(path: Path) -> str:
    head = _head(path)
    if kind_of(head) != VIDEO and (reason := why_not_read(head, path.name)):
        return reason
    return "is not a readable video, or has no frames: was it copied or recorded to its end?"


def _address(path: Path, stack: contextlib.ExitStack) -> str:
    """What OpenCV can open: it crashes at names that are not UTF-8."""
    try:
        str(path).encode()
        return str(path)
    except UnicodeEncodeError:
        return f"/dev/fd/{stack.enter_context(path.open('rb')).fileno()}"
