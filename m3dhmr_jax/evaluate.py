"""Scores of a network on a test set, beside those of the best constant guess.

Axes: b batch, n landmarks, v vertices.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from m3dhmr_jax import sharding
from m3dhmr_jax.builders import create_network, trained_state
from m3dhmr_jax.data import pipeline
from m3dhmr_jax.data.dataset import open_dataset
from m3dhmr_jax.hand import HandModel, load_builtin
from m3dhmr_jax.inference import make_eval_step
from m3dhmr_jax.metrics import (
    SampleMetrics,
    batch_metrics,
    place_about_root,
    procrustes_mean,
    scores,
)
from m3dhmr_jax.types import ROOT, Batch, Config

MEAN_HAND_MESHES = 10_000  # More do not move the mean by a hundredth of a millimetre.
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


def mean_hand(verts_m: Float[np.ndarray, "b v 3"], hand: HandModel) -> Float[np.ndarray, "v 3"]:
    """The constant guess, metres: the Procrustes mean of meshes, placed to fit them best."""
    regressor = hand.joint_regressor[ROOT]
    roots = np.einsum("v,bvc->bc", regressor, verts_m)
    shape = procrustes_mean(verts_m)
    return place_about_root(shape, regressor @ shape, verts_m - roots[:, None])


def errors_of_constant(
    verts_m: Float[np.ndarray, "v 3"], hand: HandModel
) -> Callable[[Batch], SampleMetrics]:
    """Errors of the same mesh for every photo, put at the true root."""
    xyz_m = hand.joint_regressor @ verts_m

    def errors_of(batch: Batch) -> SampleMetrics:
        root_m = batch.xyz_m[:, ROOT, None]
        return batch_metrics(
            (xyz_m[None] + root_m).astype(np.float32),
            (verts_m[None] + root_m).astype(np.float32),
            batch.xyz_m,
            batch.verts_m,
        )

    return errors_of


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


def evaluate(config: Config, workdir: Path) -> dict[str, dict[str, float]]:
    """Scores a run's checkpoint on the test set, beside the mean hand; prints and writes them.

    Raises:
        ValueError, FileNotFoundError: for a bad field, dataset or checkpoint, named.
    """
    sharding.check_divides(config.eval.batch_size, "eval.batch_size")
    hand = load_builtin()
    network = create_network(config, hand)
    state = trained_state(config, network, workdir)
    data = open_dataset(hand, **config.data.source)
    eval_step = make_eval_step(network.eval_graphdef, hand.joint_regressor, network.image_size)

    def test_batches() -> Iterator[Batch]:
        return pipeline.eval_batches(data, config.eval.batch_size)

    constant = mean_hand(training_meshes(data), hand)
    rows = {
        "model": score_batches(
            lambda batch: eval_step(state.eval_params, state.stats, batch), test_batches()
        ),
        "mean_hand": score_batches(errors_of_constant(constant, hand), test_batches()),
    }
    write_json(workdir / "eval" / "scores.json", {"step": int(state.step)} | rows)
    print(table(rows))
    return rows


def training_meshes(data: Path) -> Float[np.ndarray, "b v 3"]:
    """Meshes of the training set, at most MEAN_HAND_MESHES, evenly spaced."""
    source = pipeline.open_split(data, "train")
    rows = np.linspace(0, len(source) - 1, min(len(source), MEAN_HAND_MESHES)).astype(int)
    return np.stack([source[int(row)]["verts"] for row in rows])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)
