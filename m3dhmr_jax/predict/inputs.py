"""Which images, videos and cameras a call reads: files, folders with their subfolders, patterns."""

import dataclasses
import functools
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.file_kinds import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    VIDEO,
    VIDEO_SUFFIXES,
    kind_of,
)
from m3dhmr_jax.predict.images import MOVING_KINDS, is_moving_image
from m3dhmr_jax.predict.left_out import (
    HIDDEN,
    LOCKED_FOLDER,
    OWN_RESULT,
    LeftOut,
    describe,
    no_image,
)
from m3dhmr_jax.runtime.files import readable, user_path
from m3dhmr_jax.runtime.results_folder import is_own_output


@dataclasses.dataclass(frozen=True)
class Input:
    """An image file, a video file, or a camera."""

    # Output files start with it, if possible: the file's name without its ending, after its folder
    # within the folder that was given.
    name: str
    # The same with the ending, in messages and results.
    source: str
    path: Path | None
    camera: int | None = None

    @property
    def file_name(self) -> str:
        """Its name in files of boxes and landmarks, without folders."""
        return PurePath(self.source).name

    @functools.cached_property
    def is_video(self) -> bool:
        """Whether it has frames that follow each other in time; by the file's content."""
        return self.path is None or _is_video(self.path)


def _is_video(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
    except OSError:
        kind = None
    if kind is None:
        return path.suffix.lower() in VIDEO_SUFFIXES
    return kind == VIDEO or (kind in MOVING_KINDS and is_moving_image(path))


class FoundInputs(NamedTuple):
    """What a call reads, and what it leaves out."""

    inputs: list[Input]
    left_out: LeftOut


class _File(NamedTuple):
    path: Path
    # The folder that was given, or that of a pattern.
    folder: Path


def find_inputs(images: Sequence[str], camera: int | None = None) -> FoundInputs:
    """Files as given; the images and videos in folders, in their subfolders, and of patterns.

    Each file is taken once. Results of earlier calls are left out and counted, and so are hidden
    files and those of other kinds unless they are given by name.

    Raises:
        UserError: if something is missing, or there is no input at all.
    """
    if camera is not None and camera < 0:
        raise UserError(f"--camera {camera} must be 0 or more: cameras are numbered from 0")
    left_out = LeftOut()
    files = [file for image in images for file in _files_of(image, left_out)]
    files = list({file.path.absolute(): file for file in files}.values())
    inputs = [_as_input(file) for file in files if not is_own_output(file.path)]
    left_out[OWN_RESULT] += len(files) - len(inputs)
    left_out = +left_out  # Without zeros.
    if camera is not None:
        inputs.append(Input(f"camera{camera}", f"camera {camera}", None, camera))
    if not inputs:
        omitted = f" (left out: {describe(left_out.items())})" if left_out else ""
        raise UserError(
            f"no image or video in {list(map(readable, images))}{omitted}: name files, folders or "
            "patterns"
        )
    return FoundInputs(inputs, left_out)


def _as_input(file: _File) -> Input:
    name = file.path.relative_to(file.folder)
    return Input(name.with_suffix("").as_posix(), readable(name.as_posix()), file.path)


def _files_of(image: str, left_out: LeftOut) -> list[_File]:
    path = user_path(image)
    if os.path.isfile(path):
        return [_File(path, path.parent)]
    if os.path.isdir(path):
        return [_File(each, path) for each in _usable(sorted(_walk(path, left_out)), left_out)]
    pattern = str(path)
    matches = [Path(each) for each in glob.glob(pattern, recursive=True) if os.path.isfile(each)]
    if not matches:
        raise UserError(
            f"{readable(image)}: no such image, video or folder, or one that you may not read"
        )
    folder = _folder_of_pattern(path)
    return [_File(each, folder) for each in _usable(sorted(matches), left_out)]


def _folder_of_pattern(path: Path) -> Path:
    """What precedes the first part with a wildcard."""
    return next(each for each in path.parents if not glob.has_magic(str(each)))


def _walk(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    def count_locked(_: OSError) -> None:
        left_out[LOCKED_FOLDER] += 1

    for top, folders, names in os.walk(folder, onerror=count_locked):
        left_out[HIDDEN] += sum(each.startswith(".") for each in [*folders, *names])
        folders[:] = [each for each in folders if not each.startswith(".")]
        yield from (Path(top, each) for each in names if not each.startswith("."))


def _usable(paths: Sequence[Path], left_out: LeftOut) -> Iterator[Path]:
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES or is_own_output(path):
            yield path
        else:
            left_out[no_image(readable(suffix))] += 1
