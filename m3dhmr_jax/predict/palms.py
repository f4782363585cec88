"""Palms in an image, from what the detector's network proposes in crops of it.

Axes: k crops, p palms or the network's candidates. Pixels have their centres on integers, (x, y).
"""

import functools

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.models.hand_detector_outputs import PALM_GRIDS, PALM_IMAGE_PX, PalmCandidates
from m3dhmr_jax.predict.squares import Palms, inverses, take_rows, transform

MIN_PALM_SCORE = 0.4
# Boxes of candidates that overlap more (intersection over union) are merged.
PALM_OVERLAP = 0.3


def palms_from_candidates(
    candidates: PalmCandidates, crop_from_img: Float[np.ndarray, "k 2 3"]
) -> Palms:
    """Candidates above MIN_PALM_SCORE in all crops, in pixels of the image."""
    score = 1 / (1 + np.exp(-candidates.logits.clip(-100, 100)))
    crops, rows = np.nonzero(score >= MIN_PALM_SCORE)
    offsets_px = np.asarray(candidates.offsets_px)[crops, rows].reshape(-1, 9, 2)
    points_px = offsets_px + _cell_centres_px()[rows, None]
    half_size_px = offsets_px[:, 1] / 2
    points_px[:, 0], points_px[:, 1] = (
        points_px[:, 0] - half_size_px,
        points_px[:, 0] + half_size_px,
    )
    points_px = transform(inverses(crop_from_img)[crops], points_px - 0.5)
    return Palms(points_px[:, :2].reshape(-1, 4), points_px[:, 2:], score[crops, rows])


@functools.cache
def _cell_centres_px() -> Float[np.ndarray, "p 2"]:
    """The centre of every candidate's cell, in pixels of the palm detector's input."""
    centres = []
    for cells, candidates in PALM_GRIDS:
        y, x = np.divmod(np.arange(cells**2), cells)
        centre_px = (np.stack([x, y], axis=1) + 0.5) * (PALM_IMAGE_PX / cells)
        centres.append(np.repeat(centre_px, candidates, axis=0))
    return np.concatenate(centres)


def merge_palms(palms: Palms) -> Palms:
    """Replaces overlapping palms by their mean, weighted with the scores; best first."""
    rest, merged = take_rows(palms, np.argsort(-palms.score, kind="stable")), []
    while len(rest.score):
        same = _overlap(rest.box_px[0], rest.box_px) > PALM_OVERLAP
        same[0] = True
        group = take_rows(rest, same)
        weight = group.score / group.score.sum()
        mean = [np.tensordot(weight, x, 1) for x in (group.box_px, group.points_px)]
        merged.append((*mean, group.score[0]))
        rest = take_rows(rest, ~same)
    return Palms(*map(np.stack, zip(*merged, strict=True))) if merged else palms


def _overlap(
    box_px: Float[np.ndarray, "4"], boxes_px: Float[np.ndarray, "p 4"]
) -> Float[np.ndarray, " p"]:
    """Intersection over union of one box with each."""
    low, high = np.maximum(box_px[:2], boxes_px[:, :2]), np.minimum(box_px[2:], boxes_px[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area, areas = np.prod(box_px[2:] - box_px[:2]), np.prod(boxes_px[:, 2:] - boxes_px[:, :2], 1)
    return common / (area + areas - common + 1e-9)
