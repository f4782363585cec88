"""Paths as users write them, files that appear complete or not at all, full disks, and locks."""

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import filelock

from m3dhmr_jax.errors import UserError

Params = ParamSpec("Params")
Result = TypeVar("Result")

_REASONS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class DiskFullError(OSError):
    """Names the folder that cannot be written to."""


def user_path(path: str | Path) -> Path:
    """The path with a leading ~ or ~user replaced by that home folder, as shells do.

    Raises:
        UserError: if there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}; write the folder without ~") from error


def expand_home(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Decorates a function: its arguments that are a `Path` become those of `user_path`."""

    def expanded(argument: Any) -> Any:
        return user_path(argument) if isinstance(argument, Path) else argument

    @functools.wraps(function)
    def with_home(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        named = {name: expanded(argument) for name, argument in kwargs.items()}
        return function(*map(expanded, args), **named)  # pyright: ignore[reportCallIssue]

    return with_home


def check_new(path: Path) -> None:
    """Raises UserError if something has this name: what others wrote is not replaced."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists and is not replaced: choose another name")


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yields a path to write to, in the folder of `path`, created if needed.

    At the end the file takes the name `path`; after an exception it is deleted, and the
    previous file stays.

    Raises:
        DiskFullError: if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with explain_disk_full(path.parent):
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())  # Else a crash could leave the new name without content.
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def disk_full_reason(error: BaseException) -> str | None:
    """The system's message if the error is a full disk, else None; libraries keep only the text."""
    return next((reason for reason in _REASONS if reason in str(error)), None)


@contextlib.contextmanager
def explain_disk_full(folder: Path) -> Iterator[None]:
    """Turns any exception about a full disk into a DiskFullError that names `folder`."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        reason = disk_full_reason(error)
        if reason is None:
            raise
        raise DiskFullError(
            f"{folder}: {reason}; incomplete files are never used. Make room and start the same "
            "command again"
        ) from error


def file_lock(path: Path) -> filelock.BaseFileLock:
    """Waits on entry while another process holds it; released when its holder ends."""
    return filelock.FileLock(path)


def hint_if_deeper(folder: Path, inner: str) -> str:
    """For messages that `folder` lacks `inner`: where it is, if an archive had a folder around it.

    An empty text if it is in none of the folders inside of `folder`, or inside of these.
    """
    found = next((p for depth in ("*", "*/*") for p in folder.glob(f"{depth}/{inner}")), None)
    if found is None:
        return ""
    start = found.parents[len(Path(inner).parts) - 1]
    return f". It is in {start}, a level deeper: pass that folder, or move its content up"


def readable(path: str | Path) -> str:
    r"""The path as text for messages and JSON: bytes that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
