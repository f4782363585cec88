"""How far two predictions lie apart, and how much nearer to the truth one of them is.

Axes: b hands, v vertices.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

CONFIDENCE = 0.95


class PairedDifference(NamedTuple):
    """Errors of the same hands before and after, mm."""

    source: str
    hands: int
    before_mm: float
    after_mm: float
    # Mean of after - before: below 0 if after is better.
    difference_mm: float
    # 95 % interval of that mean; None for a single hand.
    interval_mm: tuple[float, float] | None


def paired_difference(
    source: str, before_mm: Float[np.ndarray, " b"], after_mm: Float[np.ndarray, " b"]
) -> PairedDifference:
    """The mean difference with Student's interval for pairs, which takes hands as independent."""
    differences = after_mm - before_mm
    n, mean = len(differences), float(differences.mean())
    interval_mm = None
    if n > 1:
        standard_error = differences.std(ddof=1) / np.sqrt(n)
        half = float(scipy.special.stdtrit(n - 1, (1 + CONFIDENCE) / 2) * standard_error)
        interval_mm = mean - half, mean + half
    means = float(before_mm.mean()), float(after_mm.mean())
    return PairedDifference(source, n, *means, mean, interval_mm)


def by_source(
    sources: Sequence[str], before_mm: Float[np.ndarray, " b"], after_mm: Float[np.ndarray, " b"]
) -> list[PairedDifference]:
    """One for each source, in the order in which they appear, and one for all if they are many."""
    rows = {name: np.array([each == name for each in sources]) for name in dict.fromkeys(sources)}
    found = [paired_difference(name, before_mm[at], after_mm[at]) for name, at in rows.items()]
    return found if len(found) == 1 else [*found, paired_difference("all", before_mm, after_mm)]


def apart_mm(
    before_m: Float[np.ndarray, "b v 3"],
    after_m: Float[np.ndarray, "b v 3"],
    before_root_m: Float[np.ndarray, "b 3"],
    after_root_m: Float[np.ndarray, "b 3"],
) -> Float[np.ndarray, " b"]:
    """Mean distance of corresponding vertices, with the wrists at the same place, mm."""
    offset_m = (after_m - after_root_m[:, None]) - (before_m - before_root_m[:, None])
    return 1000 * np.linalg.norm(offset_m, axis=2).mean(axis=1)
