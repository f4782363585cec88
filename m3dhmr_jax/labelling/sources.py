"""The photos and videos that are labelled, frame by frame."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from m3dhmr_jax.predict.frames import Frame, LogFn, read_frames
from m3dhmr_jax.predict.inputs import Input, find_inputs


class Source(NamedTuple):
    """A photo or a video."""

    path: Path

    @property
    def name(self) -> str:
        """Its name in `labels.json`: its path as it was given."""
        return self.path.as_posix()

    @property
    def input(self) -> Input:
        return Input(self.path.stem, self.name, self.path)

    @property
    def group(self) -> str:
        """What is kept together when a set is split: a video, or the photos of a folder."""
        return self.name if self.input.is_video else self.path.parent.as_posix()


def find_sources(photos: Sequence[str]) -> list[Source]:
    """The photos and videos, as `find_inputs`.

    Raises:
        UserError: as `find_inputs`.
    """
    return [Source(each.path) for each in find_inputs(photos).inputs if each.path is not None]


def fingerprint(sources: Sequence[Source]) -> str:
    """A hash of the names and sizes of all files, in order."""
    lines = (f"{source.name} {source.path.stat().st_size}\n" for source in sources)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def frames_of(source: Source, rate_hz: float, log: LogFn) -> Iterator[Frame]:
    """The photo, or at most `rate_hz` evenly spaced frames of each second of the video.

    Raises:
        UserError: as `read_frames`.
    """
    found = source.input
    for frame in read_frames(found, log):
        step = max(round(frame.rate_hz / rate_hz), 1) if found.is_video else 1
        if frame.index % step == 0:
            yield frame
