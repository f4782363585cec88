"""Which labelled hands are for evaluation: whole videos and folders, never single frames.

Neighbouring frames are nearly the same image. Were they spread over both parts, evaluation would
measure memory. Axes: k hands.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from m3dhmr_jax.errors import UserError

BY_SOURCE, BY_ORDER = "source", "order"


def check_split(split: float) -> float:
    """The fraction.

    Raises:
        UserError: if it leaves nothing for training or evaluation.
    """
    if not 0 < split < 1:
        raise UserError(
            f"--split {split:g} must lie between 0 and 1: it is the fraction of hands that "
            "evaluation gets, and training needs the rest"
        )
    return split


def split_hands(
    groups: Sequence[str], images: Sequence[int], split: float
) -> tuple[Bool[np.ndarray, " k"], str]:
    """Whether each hand is for evaluation, and how that was decided.

    With several groups: the smallest groups, as long as they hold no more than `split` of the
    hands, but at least one. With one group: the last `split` of it, cut between two images.

    Args:
        groups: the video or folder of each hand.
        images: the number of each hand's image, ascending.

    Raises:
        UserError: if there is only one image.
    """
    counts, n = Counter(groups), len(groups)
    if len(counts) == 1:
        start = min(n - int(np.ceil(split * n)), n - 1)
        is_evaluation = np.asarray(images) >= images[start]
        if is_evaluation.all():
            is_evaluation = np.asarray(images) > images[0]
        if not is_evaluation.any():
            raise UserError(
                "all hands that were kept are of one image, and a set needs images for training "
                "and others for evaluation: add photos or videos"
            )
        return is_evaluation, BY_ORDER
    chosen: set[str] = set()
    total = 0
    for group, count in sorted(counts.items(), key=lambda each: (each[1], each[0])):
        if chosen and total + count > split * n:
            break
        chosen.add(group)
        total += count
    return np.array([group in chosen for group in groups], bool), BY_SOURCE
