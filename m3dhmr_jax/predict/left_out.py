"""Counts of what a call does not use, and why, for its last lines."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Reason(NamedTuple):
    """What is left out, as a noun for one and for several."""

    one: str
    many: str


LeftOut = Counter[Reason]


def no_image(suffix: str) -> Reason:
    """A file in a folder whose name does not end as that of an image or a video."""
    return (
        Reason(suffix, suffix) if suffix else Reason("file without ending", "files without ending")
    )


HIDDEN = Reason("hidden file or folder", "hidden files or folders")
OWN_RESULT = Reason("result of an earlier call", "results of earlier calls")
LOCKED_FOLDER = Reason("folder that you may not read", "folders that you may not read")


def describe(left_out: Iterable[tuple[Reason, int]]) -> str:
    """As in "3 .txt, 1 result of an earlier call"; "" for nothing."""
    return ", ".join(f"{n} {reason.one if n == 1 else reason.many}" for reason, n in left_out)
