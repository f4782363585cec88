"""The hands that the report shows, and their drawings. Axes: b samples, n landmarks, v vertices."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.metrics.freihand import SampleMetrics
from m3dhmr_jax.types import ROOT, CameraHands
from m3dhmr_jax.visualize.data_uri import data_uri
from m3dhmr_jax.visualize.hands import HandDrawing
from m3dhmr_jax.visualize.overlay import draw_prediction

TRUTH_COLOUR = (0.80, 0.79, 0.76)
PANEL_PX = 240
CASES = 3  # Per kind.


class Labelled(NamedTuple):
    """An image and its ground truth."""

    image: UInt8[np.ndarray, "h w 3"]
    intrinsics: Float[np.ndarray, "3 3"]
    verts_m: Float[np.ndarray, "v 3"]


class Case(NamedTuple):
    """One card of the gallery."""

    sample: int
    caption: str
    jpeg: str  # A data URI.
    width: int
    height: int


def pick_cases(errors: SampleMetrics) -> dict[str, list[int]]:
    """Best, median and worst samples by mean vertex error after alignment, without repeats."""
    order = np.argsort(np.asarray(errors.vert_errors_al_m).mean(1), kind="stable")
    each = min(CASES, max(len(order) // 3, 1))
    middle = (len(order) - each) // 2
    spans = {"best": slice(0, each), "median": slice(middle, middle + each)}
    spans["worst"] = slice(max(len(order) - each, 0), None)
    picked: dict[str, list[int]] = {}
    for kind, span in spans.items():
        earlier = {sample for samples in picked.values() for sample in samples}
        rows = order[span][::-1] if kind == "worst" else order[span]
        picked[kind] = [int(row) for row in rows if row not in earlier]
    return picked


def caption(sample: int, errors: SampleMetrics) -> str:
    """The sample's number and errors in millimetres."""
    aligned, relative = (
        errors.vert_errors_al_m[sample].mean(),
        errors.vert_errors_rel_m[sample].mean(),
    )
    return (
        f"#{sample} · PA-MPVPE {1000 * aligned:.1f} · root-relative {1000 * relative:.1f} · "
        f"root {1000 * errors.joint_errors_m[sample, ROOT]:.0f} mm"
    )


def gallery(
    errors: SampleMetrics,
    predictions: CameraHands,
    labelled: Callable[[int], Labelled],
    hand: HandModel,
) -> dict[str, list[Case]]:
    """Cards of the picked samples; `labelled` reads the image and ground truth of a sample."""

    def card(sample: int) -> Case:
        truth = labelled(sample)
        landmarks_px, verts_m = (
            np.asarray(x[sample]) for x in (predictions.landmarks_px, predictions.verts_m)
        )
        predicted = HandDrawing(landmarks_px, verts_m, hand.faces)
        true = HandDrawing(np.zeros_like(landmarks_px), truth.verts_m, hand.faces, TRUTH_COLOUR)
        drawing = draw_prediction(
            truth.image, [predicted], truth.intrinsics, PANEL_PX, stacked=True, extra_hands=[true]
        )
        height, width, _ = drawing.shape
        return Case(sample, caption(sample, errors), data_uri(drawing), width, height)

    return {kind: [card(sample) for sample in rows] for kind, rows in pick_cases(errors).items()}
