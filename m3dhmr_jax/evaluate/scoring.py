"""Scores over batches, and how they are shown and kept.

Axes: b batch.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from m3dhmr_jax.metrics.freihand import scores
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.types import Batch

REPORTED_METRICS = {
    "pa_mpjpe_mm": "PA-MPJPE mm",
    "pa_mpvpe_mm": "PA-MPVPE mm",
    "f_5": "F@5",
    "f_15": "F@15",
    "mpjpe_mm": "MPJPE mm (root-relative)",
}


def gather(rows_of: Callable[[Batch], Any], batches: Iterable[Batch]) -> Any:
    """What `rows_of` gives for each valid example, once, in order, on every host.

    Each process passes its part of the batches; `rows_of` is called with the whole, sharded.
    """
    mesh, kept = sharding.device_mesh(), []
    for batch in batches:
        batch = sharding.shard(batch, mesh)
        valid, rows = sharding.gather_to_host((batch.valid, rows_of(batch)))
        kept.append(jax.tree.map(lambda leaf, valid=valid: leaf[valid], rows))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *kept)


def score_batches(
    error_fn: Callable[[Batch], Any],
    batches: Iterable[Batch],
    scores: Callable[[Any], dict[str, float]] = scores,
) -> dict[str, float]:
    """`scores` of the errors over all batches: each valid example counts once."""
    return scores(gather(error_fn, batches))


def format_score(name: str, value: float) -> str:
    """A score as it is printed: lengths to a hundredth, shares to a thousandth."""
    return f"{value:.{2 if name.endswith(('_mm', '_px')) else 3}f}"


def table(
    rows: Mapping[str, Mapping[str, float]], reported_metrics: Mapping[str, str] = REPORTED_METRICS
) -> str:
    """The numbers that papers quote, a row per entry; `reported_metrics` says which, and their headings."""

    def line(name: str, cells: Iterable[str]) -> str:
        padded = (
            f"{cell:>{max(len(t), 5)}}"
            for t, cell in zip(reported_metrics.values(), cells, strict=True)
        )
        return f"| {name:24} | " + " | ".join(padded) + " |"

    head = line("", reported_metrics.values())
    rule = "".join("|" if character == "|" else "-" for character in head)
    lines = [
        line(name.replace("_", " "), (format_score(key, row[key]) for key in reported_metrics))
        for name, row in rows.items()
    ]
    return "\n".join([head, rule, *lines])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)
