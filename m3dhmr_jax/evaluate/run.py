"""Scores of a network on a test set, beside those of the best constant guess."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from m3dhmr_jax import sharding
from m3dhmr_jax.builders import load_hand, trained_state
from m3dhmr_jax.data import pipeline
from m3dhmr_jax.data.dataset import open_dataset
from m3dhmr_jax.evaluate.official import Hands, write_predictions
from m3dhmr_jax.evaluate.scoring import score_batches, table, write_json
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.types import Batch, Config


def evaluate(config: Config, workdir: Path) -> dict[str, dict[str, float]]:
    """Scores a run's checkpoint on the test set, beside a constant guess; prints and writes them.

    Raises:
        ValueError, FileNotFoundError: for a bad field, dataset or checkpoint, named.
    """
    sharding.check_divides(config.eval.batch_size, "eval.batch_size")
    if config.eval.save_predictions and config.task != "mesh":
        raise ValueError(
            f"eval.save_predictions=True needs meshes, and task={config.task!r} learns none"
        )
    hand = load_hand(config)
    task = create_task(config, hand)
    state = trained_state(config, task.network, workdir)
    data = open_dataset(hand, **config.data.source)
    answers: list[Hands] = []

    def errors_of(batch: Batch) -> Any:
        answer = task.answer_step(state.eval_params, state.stats, batch)
        if config.eval.save_predictions:
            answers.append(
                Hands(*(np.asarray(x)[batch.valid] for x in (answer.xyz_m, answer.verts_m)))
            )
        return task.errors_of(answer, batch)

    def test_batches() -> Iterator[Batch]:
        return pipeline.eval_batches(data, config.eval.batch_size)

    guess, errors_of_guess = task.constant_guess
    rows = {
        "model": score_batches(errors_of, test_batches(), task.scores),
        guess: score_batches(errors_of_guess(data), test_batches(), task.scores),
    }
    source = {"checkpoint": config.eval.checkpoint, "step": int(state.step)}
    write_json(workdir / "eval" / "scores.json", source | rows)
    print(table(rows, task.headline))
    if config.eval.save_predictions:
        joined = Hands(*map(np.concatenate, zip(*answers, strict=True)))
        zipped = write_predictions(workdir / "eval" / "pred.json", joined)
        print(f"Predictions for submission: {zipped}")
    return rows
