"""The page that shows two networks side by side.

Axes: b hands, a c drawing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.evaluate.comparison.hands import ComparedHand, HandPoints
from m3dhmr_jax.evaluate.comparison.statistics import PairedDifference
from m3dhmr_jax.evaluate.report.cases import TRUTH_COLOUR, Case
from m3dhmr_jax.evaluate.report.entry import Entry
from m3dhmr_jax.evaluate.report.figures import histogram_figure, pck_figure
from m3dhmr_jax.evaluate.report.tables import ALIGNED, RELATIVE, Table, cell, own_table
from m3dhmr_jax.evaluate.report.template import render_template
from m3dhmr_jax.predict.crops import crop, crop_matrix
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.visualize.data_uri import data_uri
from m3dhmr_jax.visualize.hands import HandDrawing
from m3dhmr_jax.visualize.mesh import MESH_COLOUR
from m3dhmr_jax.visualize.overlay import draw_meshes

PANEL_PX, GAP_PX = 208, 4
MARGIN = 1.1  # Side of a panel over that of the hand's crop.
# More would make the page larger than browsers like; the numbers have all hands.
MAX_WORST, MAX_DIFFERING = 200, 12


class ComparisonPage(NamedTuple):
    """The content of the page."""

    # Before and after.
    names: tuple[str, str]
    folder: str
    hands: Sequence[ComparedHand]
    apart_mm: Float[np.ndarray, " b"]
    # None without truth.
    entries: tuple[Entry, Entry] | None
    differences: Sequence[PairedDifference]
    errors_mm: Float[np.ndarray, "2 b"] | None


def render_comparison(page: ComparisonPage) -> str:
    """The page, worst hands first: by the error after or, without truth, by the distance."""
    charts, tiles, scores = {}, [], None
    worst, differing = page.apart_mm, None
    if page.entries is not None and page.errors_mm is not None:
        before, after = page.entries
        errors = {"after": after.errors, "before": before.errors}
        charts = {"histogram": histogram_figure(errors), "pck": pck_figure(errors, aligned=True)}
        keys = ("pa_mpjpe_mm", "pa_mpvpe_mm", "f_5", "f_15")
        tiles = [_tile(key, before, after) for key in keys]
        scores = own_table(ALIGNED | RELATIVE, {"before": before.scores, "after": after.scores})
        worst, differing = page.errors_mm[1], page.errors_mm[1] - page.errors_mm[0]
    rows = {"worst": _largest(worst, MAX_WORST)}
    rows["differing"] = [] if differing is None else _largest(np.abs(differing), MAX_DIFFERING)
    cards = {row: _card(page, row) for row in {*rows["worst"], *rows["differing"]}}
    return render_template(
        "comparison.html",
        "M3DHMR: before and after",
        charts,
        before=page.names[0],
        after=page.names[1],
        folder=page.folder,
        hands=len(page.hands),
        images=len({each.path for each in page.hands}),
        apart=f"{page.apart_mm.mean():.1f}",
        tiles=tiles,
        scores=scores,
        differences=difference_table(page.differences),
        worst=[cards[row] for row in rows["worst"]],
        differing=[cards[row] for row in rows["differing"]],
        panels=["image", "before", "after", *(["label"] if page.entries else [])],
    )


def _tile(key: str, before: Entry, after: Entry) -> dict[str, str]:
    values = {"before": before.scores[key], "after": after.scores[key]}
    return {"name": ALIGNED[key]} | {name: cell(key, value) for name, value in values.items()}


def difference_table(differences: Sequence[PairedDifference]) -> Table:
    """Rows of sources: the error before and after, and their difference with its interval."""
    heads = ["hands", "before, mm", "after, mm", "after - before, mm", "95 % interval"]
    return Table([], heads, len(heads), [(each.source, _cells(each)) for each in differences])


def _cells(row: PairedDifference) -> list[str]:
    interval = "" if row.interval_mm is None else "{:+.2f} to {:+.2f}".format(*row.interval_mm)
    means = f"{row.before_mm:.2f}", f"{row.after_mm:.2f}", f"{row.difference_mm:+.2f}"
    return [f"{row.hands:,}", *means, interval]


def _largest(values: Float[np.ndarray, " b"], count: int) -> list[int]:
    return np.argsort(-values, kind="stable")[:count].tolist()


def _card(page: ComparisonPage, row: int) -> Case:
    hand = page.hands[row]
    drawing = draw_hand(hand)
    height, width, _ = drawing.shape
    caption = f"{hand.name} · {page.apart_mm[row]:.1f} mm apart"
    if page.errors_mm is not None:
        before_mm, after_mm = page.errors_mm[:, row]
        caption += f" · PA-MPJPE {before_mm:.1f} before, {after_mm:.1f} mm after"
    return Case(row, caption, data_uri(drawing), width, height)


def draw_hand(hand: ComparedHand) -> UInt8[np.ndarray, "a c 3"]:
    """The hand's part of the image; the same with the mesh before, after and, if any, the label."""
    x, y, side, _ = hand.crop_px.tolist()
    margin = (MARGIN - 1) * side / 2
    square_px = np.array([x - margin, y - margin, MARGIN * side, MARGIN * side])
    matrix = crop_matrix(square_px, PANEL_PX)
    image = crop(read_image(hand.path).image, matrix, PANEL_PX)
    intrinsics = np.vstack([matrix, [0, 0, 1]]) @ hand.intrinsics
    shown = [(hand.before, MESH_COLOUR), (hand.after, MESH_COLOUR), (hand.truth, TRUTH_COLOUR)]
    panels = [image]
    for points, colour in shown:
        if points is not None:
            panels.append(draw_meshes(image, [_drawing(hand, points, colour)], intrinsics))
    gap = np.full((PANEL_PX, GAP_PX, 3), 255, np.uint8)
    spaced = [part for panel in panels for part in (gap, panel)][1:]
    return np.concatenate(spaced, axis=1)


def _drawing(
    hand: ComparedHand, points: HandPoints, colour: tuple[float, float, float]
) -> HandDrawing:
    """Only the mesh is drawn: landmarks are not looked at."""
    return HandDrawing(np.zeros((len(points.joints_m), 2)), points.verts_m, hand.faces, colour)
