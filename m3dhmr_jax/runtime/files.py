"""A disk that is full, and folders that several processes want at once."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_REASONS = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class DiskFullError(OSError):
    """Names the folder that cannot be written to."""


def full_disk(error: BaseException) -> str | None:
    """What the system said, if it is that there is no room; libraries keep its words at most."""
    return next((reason for reason in _REASONS if reason in str(error)), None)


@contextlib.contextmanager
def explain_disk_full(folder: Path) -> Iterator[None]:
    """Raises DiskFullError with the name of `folder` for whatever tells of a full disk inside."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        reason = full_disk(error)
        if reason is None:
            raise
        raise DiskFullError(
            f"{folder}: {reason}; nothing half-written will be taken for whole. Make room and "
            "start the same command again"
        ) from error


@contextlib.contextmanager
def file_lock(lock: Path) -> Iterator[None]:
    """Waits while another process is inside; the lock ends with the process that holds it."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
