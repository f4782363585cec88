"""Folders that list the files a command wrote there: all others in them belong to the user.

The list is `m3dhmr_files.txt`. Its first line, the mark, names the command; each other line is the
name of a file, relative to the folder, and is added before that file is written. So the list is
complete after a crash too, and an incomplete last line names a file that was never begun.
"""

import contextlib
import functools
import io
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import DiskFullError, explain_disk_full

MANIFEST = "m3dhmr_files.txt"
MARK_START = "The files that m3dhmr "


class Manifest(NamedTuple):
    """The list of a folder."""

    mark: str
    names: frozenset[str]


def mark_of(command: str) -> str:
    """The first line of the lists of this command."""
    return f"{MARK_START}{command} wrote here; its --replace removes these and no others."


def read_manifest(folder: Path) -> Manifest | None:
    """The list of a folder; None if it has none, or a file of that name that is something else."""
    path = folder / MANIFEST
    return parse_manifest(path.read_bytes()) if _is_regular(path) else None


def parse_manifest(content: bytes) -> Manifest | None:
    """The list in a file's content; None if it is something else."""
    mark, *names = os.fsdecode(content).split("\n")
    if not mark.startswith(MARK_START) or not names:
        return None
    return Manifest(mark, frozenset(names[:-1]))


def is_own_output(path: Path) -> bool:
    """Whether a file is listed in its folder, or is the list: a result, and not an input."""
    try:
        stamp = (path.parent / MANIFEST).stat().st_mtime_ns
    except OSError:
        return False
    return path.name in _listed(path.parent.absolute(), stamp)


@functools.lru_cache
def _listed(folder: Path, stamp: int) -> frozenset[str]:
    """`stamp` is another one when the list has changed."""
    manifest = read_manifest(folder)
    return frozenset() if manifest is None else manifest.names | {MANIFEST}


def free_folder(first: Path) -> Path:
    """The first of `first`, `first`-2, `first`-3, ... that is new or an empty folder."""
    numbered = (first.with_name(f"{first.name}-{i}") for i in itertools.count(2))
    return next(path for path in itertools.chain([first], numbered) if _is_free(path))


def _is_free(path: Path) -> bool:
    return not any(path.iterdir()) if path.is_dir() else not os.path.lexists(path)


def check_results_folder(
    folder: Path, command: str, names: Iterable[str] = (), *, replace: bool
) -> list[Path]:
    """Checks that a call of the command may write files of these names; changes nothing.

    Returns:
        What has to be removed first: the files of the earlier call and, at the end, their list.

    Raises:
        UserError: if the folder has content without the command's mark, or results without
            `replace`; if its list was edited, or a file of one of the names is not listed.
    """
    if _is_free(folder):
        return []
    manifest = read_manifest(folder)
    if manifest is None or manifest.mark != mark_of(command):
        raise UserError(
            f"--out {folder} is neither new, nor empty, nor a folder of m3dhmr {command}: choose "
            "another one, so that nothing of yours is replaced"
        )
    if not replace:
        raise UserError(
            f"--out {folder} has the results of an earlier call: choose another folder, such as "
            f"{free_folder(folder)}, or add --replace, which removes the files that "
            f"{MANIFEST} lists there and no others"
        )
    own = [path for name in sorted(manifest.names) if _is_regular(path := _inside(folder, name))]
    for path in {_inside(folder, name) for name in names} - set(own):
        _check_absent(path)
    return [*own, folder / MANIFEST]


def _inside(folder: Path, name: str) -> Path:
    """The path of a name.

    Raises:
        UserError: if it is not in the folder, or only through a link.
    """
    path = folder / name
    is_outside = Path(name).anchor or ".." in Path(name).parts
    if is_outside or not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{path} is not in {folder}: {MANIFEST} was edited, or a folder became a link; choose "
            "another --out"
        )
    return path


def _is_regular(path: Path) -> bool:
    """Whether it is a file. Links and folders are never written here, so they are the user's."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _check_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise UserError(
            f"{path} is not of an earlier call and not replaced: move it, or choose another --out"
        )


class ResultsFolder:
    """Writes and lists the files of one call in a folder that `check_results_folder` accepts.

    With `replace`, the files of the earlier call are removed first.

    Raises:
        UserError: as `check_results_folder`, or if the folder cannot be written to.
        DiskFullError: if the disk is full.
    """

    def __init__(
        self, folder: Path, command: str, names: Iterable[str] = (), *, replace: bool = False
    ):
        own = check_results_folder(folder, command, names, replace=replace)
        self.path = folder
        try:
            with explain_disk_full(folder):
                for path in own:
                    path.unlink()
                folder.mkdir(parents=True, exist_ok=True)
                self._manifest = (folder / MANIFEST).open("xb", buffering=0)
        except DiskFullError:
            raise
        except OSError as error:
            raise UserError(
                f"--out {folder}: {error.strerror}; choose a folder that you may write"
            ) from error
        append_line(self._manifest, f"{mark_of(command)}\n".encode())

    def __enter__(self) -> "ResultsFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._manifest.close()

    def add(self, name: str) -> Path:
        """Lists a file that is written next, and returns its path.

        Raises:
            UserError: if there is a file of this name.
            DiskFullError, OSError: if it cannot be listed.
        """
        if "\n" in name:
            raise ValueError(f"{name!r} would be two lines of {MANIFEST}")
        path = _inside(self.path, name)
        _check_absent(path)
        append_line(self._manifest, os.fsencode(f"{name}\n"))
        return path

    def write(self, name: str, content: bytes) -> None:
        """Lists and writes a file.

        Raises:
            UserError: if there is a file of this name.
            DiskFullError, OSError: if it cannot be written completely; it is removed then.
        """
        path = self.add(name)
        with removed_on_error(path), path.open("wb", buffering=0) as file:
            _write_all(file, content)


@contextlib.contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Removes a file of this call if writing it fails.

    Raises:
        DiskFullError: with the folder, if the disk is full.
        OSError: with the path, for other reasons.
    """
    try:
        with _named_errors(path):
            yield
    except Exception:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def append_line(file: io.FileIO, line: bytes) -> None:
    """Appends to a file that is open without a buffer: all of the line or nothing.

    Raises:
        DiskFullError, OSError: as `removed_on_error`.
    """
    end = file.tell()
    with _named_errors(Path(os.fsdecode(file.name))):
        try:
            _write_all(file, line)
        except OSError:
            file.truncate(end)
            raise


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Where a disk is nearly full, a part is written first, and only the next write fails."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        with explain_disk_full(path.parent):
            yield
    except DiskFullError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
