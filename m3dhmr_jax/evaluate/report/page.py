"""The report: one HTML file that needs no network.

About 5.5 MB: plotly.js, which draws the charts and the rotatable hand, takes 4.8, drawings most of
the rest.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from m3dhmr_jax.evaluate.report.cases import Case
from m3dhmr_jax.evaluate.report.entry import Entry
from m3dhmr_jax.evaluate.report.figures import (
    Figure,
    histogram_figure,
    joints_figure,
    pck_figure,
    regions_figure,
    surface_figure,
)
from m3dhmr_jax.evaluate.report.tables import ALIGNED, PAPER, camera_table, cell, score_table
from m3dhmr_jax.evaluate.report.template import render_template
from m3dhmr_jax.hand import HandModel


class About(NamedTuple):
    """Which data, checkpoint and config the scores belong to, as text."""

    title: str
    trained_on: str
    tested_on: str
    facts: Mapping[str, str]  # Such as the step.
    config: Mapping[str, str]
    versions: Mapping[str, str]
    focal_noise: str  # How K was perturbed.


def figures(model: Entry, baseline: Entry, hand: HandModel) -> dict[str, Figure]:
    """All charts by their names in the template."""
    entries = {"network": model.errors, "mean hand": baseline.errors}
    return {
        "pck-aligned": pck_figure(entries, aligned=True),
        "pck-camera": pck_figure({"network": model.errors}, aligned=False),
        "histogram": histogram_figure(entries),
        "joints": joints_figure(model.errors),
        "regions": regions_figure(model.errors, hand),
        "surface": surface_figure(model.errors, hand),
    }


def _tiles(model: Entry, baseline: Entry) -> list[dict[str, str]]:
    paper = PAPER["M3DHMR ResNet18"]
    keys = ("pa_mpjpe_mm", "pa_mpvpe_mm", "f_5", "f_15")
    values = {"value": model.scores, "baseline": baseline.scores, "paper": paper}
    return [
        {"name": ALIGNED[key]} | {name: cell(key, row[key]) for name, row in values.items()}
        for key in keys
    ]


def render(
    model: Entry,
    baseline: Entry,
    perturbed_focal: Mapping[str, float],
    cases: Mapping[str, Sequence[Case]],
    hand: HandModel,
    about: About,
) -> str:
    """The page; `perturbed_focal` are the scores in camera space for a perturbed K."""
    return render_template(
        "page.html",
        about.title,
        figures(model, baseline, hand),
        about=about,
        tiles=_tiles(model, baseline),
        scores=score_table(
            {"network": model.scores, "mean hand": baseline.scores}, about.trained_on
        ),
        camera=camera_table(
            {"K as given": model.scores, "perturbed focal length": perturbed_focal}
        ),
        cases=cases,
    )
