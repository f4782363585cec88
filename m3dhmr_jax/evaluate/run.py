"""Scores of a network on a test set, beside those of the best constant guess."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3dhmr_jax.builders import load_hand, trained_state
from m3dhmr_jax.data import loader
from m3dhmr_jax.datasets import open_dataset
from m3dhmr_jax.evaluate.focal_noise import HOW, CameraErrors, errors_with_perturbed_focal
from m3dhmr_jax.evaluate.official import Hands, write_predictions
from m3dhmr_jax.evaluate.report.page import Entry
from m3dhmr_jax.evaluate.reporting import about, write_report
from m3dhmr_jax.evaluate.scoring import gather, table, write_json
from m3dhmr_jax.metrics.freihand import camera_scores
from m3dhmr_jax.runtime import processes, sharding
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.types import Batch, Config


class Judged(NamedTuple):
    """All that is kept of each photo, about 100 MB of a set of FreiHAND's size."""

    answer: Any  # As the task's answer step gives it.
    errors: Any
    perturbed_focal: CameraErrors | None  # Of hands in camera space.


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
    task = create_task(config, hand, abstract=True)
    state = trained_state(config, task.network, workdir)
    data = open_dataset(hand, **config.data.source)
    mesh, meshes = sharding.device_mesh(), config.task == "mesh"

    def judged(batch: Batch, params: Any, stats: Any) -> Judged:
        answer = task.predict_step(params, stats, batch)
        perturbed_focal = errors_with_perturbed_focal(answer, batch) if meshes else None
        return Judged(answer, task.error_fn(answer, batch), perturbed_focal)

    def test_batches() -> Iterator[Batch]:
        return loader.eval_batches(data, config.eval.batch_size, **processes.process_shard())

    judge, weights = sharding.data_parallel(judged, mesh), (state.eval_params, state.stats)
    model = gather(lambda batch: judge(batch, *weights), test_batches())
    guess, baseline_error_fn = task.constant_guess
    constant = gather(sharding.data_parallel(baseline_error_fn(data), mesh), test_batches())
    rows = {"model": task.scores(model.errors), guess: task.scores(constant)}
    if not processes.is_primary():
        return rows
    content = {"checkpoint": config.eval.checkpoint, "step": int(state.step)} | rows
    if meshes:
        noisy = camera_scores(*model.perturbed_focal)
        content |= {"model_with_perturbed_focal": noisy, "perturbed_focal": HOW}
    write_json(workdir / "eval" / "scores.json", content)
    print(table(rows, task.reported_metrics))
    if meshes:
        path = workdir / "eval" / "report.html"
        network = Entry(rows["model"], model.errors)
        page = (network, Entry(rows[guess], constant), noisy, model.answer)
        write_report(path, *page, hand, data, about(config, data, int(state.step)))
        print(f"Report: {path}")
    if config.eval.save_predictions:
        hands = Hands(model.answer.joints_m, model.answer.verts_m)
        zipped = write_predictions(workdir / "eval" / "pred.json", hands)
        print(f"Predictions for submission: {zipped}")
    return rows
