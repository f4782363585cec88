"""From the lines of finished runs to a table and a plot.

A difference to the full model is taken seed by seed: two systems of one seed see the same images in
the same order, and what that order does to both of them cancels out.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from benchmarks.decoders.systems import FULL, SYSTEMS
from benchmarks.decoders.training import Settings
from benchmarks.measure import table

METRICS = {"pa_mpvpe_mm": "PA-MPVPE mm", "pa_mpjpe_mm": "PA-MPJPE mm"}
SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))
WIDTH, HEIGHT, MARGIN, LEGEND = 860, 460, 50, 190
COLORS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#999999")
SHOWN_ABOVE = 1.35  # The plot ends at this times the lowest error.

Line = Mapping[str, Any]


class Estimate(NamedTuple):
    mean: float
    error: float | None  # Standard error; None for a single value.

    def text(self, sign: str = "") -> str:
        return f"{self.mean:{sign}.2f}" + ("" if self.error is None else f" ± {self.error:.2f}")


def estimate(values: Sequence[float]) -> Estimate:
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), None if error is None else float(error))


def paired_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Estimate | None:
    """Of `values` minus `others`, over the seeds that both have; None without a common seed."""
    seeds = sorted(values.keys() & others.keys())
    return estimate([values[seed] - others[seed] for seed in seeds]) if seeds else None


def comparisons(lines: Iterable[Line]) -> list[list[Line]]:
    """The lines of each comparison: of equal settings, the newest line of each system and seed."""
    found: dict[str, dict[tuple[str, int], Line]] = {}
    for line in lines:
        settings = repr([line[name] for name in SETTINGS])
        found.setdefault(settings, {})[line["system"], line["seed"]] = line
    return [list(each.values()) for each in found.values()]


def by_system(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """In the order in which the systems are defined."""
    lines = list(lines)
    groups = {name: [line for line in lines if line["system"] == name] for name in SYSTEMS}
    return {name: each for name, each in groups.items() if each}


def summary(lines: Iterable[Line]) -> str:
    """The Markdown table of one comparison."""
    systems = by_system(lines)
    heads = ["decoder", "seeds", "parameters, k", "multiply-adds, M"]
    for name in METRICS.values():
        heads += [name, "less the full model"]
    rows = []
    for name, runs in systems.items():
        size = runs[0]["parameters"] / 1e3, runs[0]["multiply_adds"] / 1e6
        row: list[object] = [name, len(runs), *(f"{each:.0f}" for each in size)]
        for metric in METRICS:
            own = {run["seed"]: run[metric] for run in runs}
            full = {run["seed"]: run[metric] for run in systems.get(FULL.name, ())}
            less = None if name == FULL.name else paired_difference(own, full)
            row += [estimate(list(own.values())).text(), less and less.text(sign="+")]
        rows.append(row)
    return table(heads, rows)


def curves(lines: Iterable[Line]) -> dict[str, np.ndarray]:
    """For each system, (step, mean PA-MPVPE mm over its seeds)."""
    return {
        name: np.mean([[(step, verts) for step, _, verts in run["curve"]] for run in runs], axis=0)
        for name, runs in by_system(lines).items()
    }


def plot(lines: Iterable[Line]) -> str:
    """An SVG of the curves."""
    found = curves(lines)
    last = max(curve[-1, 0] for curve in found.values())
    low = min(curve[:, 1].min() for curve in found.values())
    low, high = math.floor(low), math.ceil(SHOWN_ABOVE * low)
    right, bottom = WIDTH - LEGEND, HEIGHT - MARGIN

    def at(step: float, error_mm: float) -> tuple[float, float]:
        x = MARGIN + step / last * (right - MARGIN)
        return x, bottom - (error_mm - low) / (high - low) * (bottom - MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="{MARGIN - 16}">PA-MPVPE of held-out hands, mm</text>',
        f'<text x="{right}" y="{HEIGHT - 12}" text-anchor="end">steps</text>',
        f'<clipPath id="area"><rect x="{MARGIN}" y="{MARGIN}" width="{right - MARGIN}" '
        f'height="{bottom - MARGIN}"/></clipPath>',
    ]
    for error_mm in range(low, high + 1, max(1, (high - low) // 6)):
        y = at(0, error_mm)[1]
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{error_mm}</text>')
    for step in np.linspace(0, last, 5).tolist():
        x = at(step, low)[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{step:.0f}</text>')
    for number, (name, curve) in enumerate(found.items()):
        points = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in curve.tolist())
        dash = "" if number < len(COLORS) else ' stroke-dasharray="5 3"'
        style = f'stroke="{COLORS[number % len(COLORS)]}" stroke-width="1.6"{dash}'
        y = MARGIN + 16 * number
        parts.append(
            f'<polyline clip-path="url(#area)" fill="none" {style} points="{points}"/>'
            f'<path d="M{right + 12} {y}h22" {style}/>'
            f'<text x="{right + 40}" y="{y + 4}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
