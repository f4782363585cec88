"""Scores over batches, and how they are printed and written.

Axes: b batch.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from m3dhmr_jax.metrics.freihand import scores
from m3dhmr_jax.metrics.reported import REPORTED_METRICS, format_score
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.types import Batch


def gather(per_example_fn: Callable[[Batch], Any], batches: Iterable[Batch]) -> Any:
    """The outputs of `per_example_fn` for each valid example, once, in order, on every host.

    Each process passes its shard of the batches; `per_example_fn` gets the global, sharded batch.
    """
    mesh, kept = sharding.device_mesh(), []
    for batch in batches:
        batch = sharding.shard(batch, mesh)
        valid, outputs = sharding.gather_to_host((batch.valid, per_example_fn(batch)))
        kept.append(jax.tree.map(lambda leaf, valid=valid: leaf[valid], outputs))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)


def score_batches(
    error_fn: Callable[[Batch], Any],
    batches: Iterable[Batch],
    scores: Callable[[Any], dict[str, float]] = scores,
) -> dict[str, float]:
    """`scores` of the errors over all batches: each valid example counts once."""
    return scores(gather(error_fn, batches))


def table(
    rows: Mapping[str, Mapping[str, float]], reported_metrics: Mapping[str, str] = REPORTED_METRICS
) -> str:
    """A row per entry and a column per metric of `reported_metrics`, under its name there."""

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
