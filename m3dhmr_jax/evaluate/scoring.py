"""Scores over batches, and how they are shown and kept.

Axes: b batch.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from m3dhmr_jax.metrics import SampleMetrics, scores
from m3dhmr_jax.types import Batch

SHOWN = {
    "pa_mpjpe_mm": "PA-MPJPE mm",
    "pa_mpvpe_mm": "PA-MPVPE mm",
    "f_5": "F@5",
    "f_15": "F@15",
    "mpjpe_mm": "MPJPE mm (root-relative)",
}


def score_batches(
    errors_of: Callable[[Batch], SampleMetrics], batches: Iterable[Batch]
) -> dict[str, float]:
    """Scores over all valid examples, each counted once."""
    results = [(jax.device_get(errors_of(batch)), np.asarray(batch.valid)) for batch in batches]
    samples, valid = zip(*results, strict=True)
    return scores(jax.tree.map(lambda *x: np.concatenate(x), *samples), np.concatenate(valid))


def table(rows: dict[str, dict[str, float]]) -> str:
    """The numbers that papers quote, a row per entry."""

    def line(name: str, cells: Iterable[str]) -> str:
        padded = (
            f"{cell:>{max(len(t), 5)}}" for t, cell in zip(SHOWN.values(), cells, strict=True)
        )
        return f"| {name:24} | " + " | ".join(padded) + " |"

    head = line("", SHOWN.values())
    rule = "".join("|" if character == "|" else "-" for character in head)
    lines = [
        line(
            name.replace("_", " "),
            (f"{row[key]:.{3 if key.startswith('f') else 2}f}" for key in SHOWN),
        )
        for name, row in rows.items()
    ]
    return "\n".join([head, rule, *lines])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)
