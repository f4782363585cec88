"""Scores of a network on a test set, beside those of the best constant guess.

Axes: b batch, n landmarks, v vertices.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from m3dhmr_jax import sharding
from m3dhmr_jax.builders import create_network, load_hand, trained_state
from m3dhmr_jax.data import pipeline
from m3dhmr_jax.data.dataset import open_dataset
from m3dhmr_jax.evaluate.official import Hands, write_predictions
from m3dhmr_jax.evaluate.scoring import score_batches, table, write_json
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import make_answer_step
from m3dhmr_jax.metrics import SampleMetrics, batch_metrics, place_about_root, procrustes_mean
from m3dhmr_jax.types import ROOT, Batch, Config

MEAN_HAND_MESHES = 10_000  # More do not move the mean by a hundredth of a millimetre.


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


def evaluate(config: Config, workdir: Path) -> dict[str, dict[str, float]]:
    """Scores a run's checkpoint on the test set, beside the mean hand; prints and writes them.

    Raises:
        ValueError, FileNotFoundError: for a bad field, dataset or checkpoint, named.
    """
    sharding.check_divides(config.eval.batch_size, "eval.batch_size")
    hand = load_hand(config)
    network = create_network(config, hand)
    state = trained_state(config, network, workdir)
    data = open_dataset(hand, **config.data.source)
    answer = make_answer_step(network.eval_graphdef, hand.joint_regressor, network.image_size)
    answers: list[Hands] = []

    def errors_of(batch: Batch) -> SampleMetrics:
        hands = answer(state.eval_params, state.stats, batch)
        if config.eval.save_predictions:
            answers.append(
                Hands(*(np.asarray(x)[batch.valid] for x in (hands.xyz_m, hands.verts_m)))
            )
        return batch_metrics(hands.xyz_m, hands.verts_m, batch.xyz_m, batch.verts_m)

    def test_batches() -> Iterator[Batch]:
        return pipeline.eval_batches(data, config.eval.batch_size)

    constant = mean_hand(training_meshes(data), hand)
    rows = {
        "model": score_batches(errors_of, test_batches()),
        "mean_hand": score_batches(errors_of_constant(constant, hand), test_batches()),
    }
    write_json(workdir / "eval" / "scores.json", {"step": int(state.step)} | rows)
    print(table(rows))
    if config.eval.save_predictions:
        joined = Hands(*map(np.concatenate, zip(*answers, strict=True)))
        zipped = write_predictions(workdir / "eval" / "pred.json", joined)
        print(f"Predictions for submission: {zipped}")
    return rows


def training_meshes(data: Path) -> Float[np.ndarray, "b v 3"]:
    """Meshes of the training set, at most MEAN_HAND_MESHES, evenly spaced."""
    source = pipeline.open_split(data, "train")
    rows = np.linspace(0, len(source) - 1, min(len(source), MEAN_HAND_MESHES)).astype(int)
    return np.stack([source[int(row)]["verts"] for row in rows])
