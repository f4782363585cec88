"""Evaluation: scores of a checkpoint on the test set, next to those of the constant baseline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.checkpoints.restore import restore_eval_state
from m3dhmr_jax.config_fields import read_config
from m3dhmr_jax.data import loader
from m3dhmr_jax.datasets import open_dataset
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate.focal_noise import DESCRIPTION, CameraErrors, errors_with_perturbed_focal
from m3dhmr_jax.evaluate.official import Hands, write_predictions
from m3dhmr_jax.evaluate.report.entry import Entry
from m3dhmr_jax.evaluate.report.writer import about, write_report
from m3dhmr_jax.evaluate.scoring import gather, table, write_json
from m3dhmr_jax.metrics.freihand import camera_scores
from m3dhmr_jax.runtime import processes, sharding
from m3dhmr_jax.runtime.files import expand_home
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.types import Batch, Config

N_BASELINE_HANDS = 10_000  # More do not move the mean mesh by a hundredth of a millimetre.


class EvalOutputs(NamedTuple):
    """What is kept per example, about 100 MB for a set of FreiHAND's size."""

    # As the task's `predict_step` and `error_fn` return them.
    predictions: Any
    errors: Any
    # None for tasks without meshes.
    perturbed_focal: CameraErrors | None


@single_precision()
@expand_home
def evaluate(config: Config, workdir: Path) -> dict[str, dict[str, float]]:
    """Scores a run's checkpoint and the baseline on the test set; prints and writes the scores.

    Raises:
        UserError: for a bad field, dataset or checkpoint.
    """
    config = read_config(config)
    sharding.check_divides(config.eval.batch_size, "eval.batch_size")
    hand = load_hand(config)
    task = create_task(config, hand, abstract=True)
    if config.eval.save_predictions and not task.predicts_meshes:
        raise UserError(
            f"eval.save_predictions=True needs meshes, and task={config.task!r} predicts none"
        )
    state = restore_eval_state(task.network, workdir, config.eval.checkpoint)
    data = open_dataset(hand, **config.data.source)
    mesh = sharding.device_mesh()

    def evaluate_batch(batch: Batch, params: Any, stats: Any) -> EvalOutputs:
        predictions = task.predict_step(params, stats, batch)
        perturbed_focal = (
            errors_with_perturbed_focal(predictions, batch) if task.predicts_meshes else None
        )
        return EvalOutputs(predictions, task.error_fn(predictions, batch), perturbed_focal)

    eval_step = sharding.data_parallel(evaluate_batch, mesh)
    outputs = gather(
        lambda batch: eval_step(batch, state.params, state.stats), test_set_batches(config, data)
    )
    labels = loader.sample_labels(data, task.baseline.labels, N_BASELINE_HANDS)
    baseline_step = sharding.data_parallel(task.baseline.make_error_fn(*labels), mesh)
    baseline_errors = gather(baseline_step, test_set_batches(config, data))
    rows = {
        "model": task.scores(outputs.errors),
        task.baseline.name: task.scores(baseline_errors),
    }
    if not processes.is_primary():
        return rows
    content = {"checkpoint": config.eval.checkpoint, "step": state.step} | rows
    if task.predicts_meshes:
        perturbed = camera_scores(*outputs.perturbed_focal)
        content |= {"model_with_perturbed_focal": perturbed, "perturbed_focal": DESCRIPTION}
    write_json(workdir / "eval" / "scores.json", content)
    print(table(rows, task.reported_metrics))
    if task.predicts_meshes:
        path = workdir / "eval" / "report.html"
        network = Entry(rows["model"], outputs.errors)
        baseline = Entry(rows[task.baseline.name], baseline_errors)
        page = (network, baseline, perturbed, outputs.predictions)
        write_report(path, *page, hand, data, about(config, data, state.step))
        print(f"Report: {path}")
    if config.eval.save_predictions:
        hands = Hands(outputs.predictions.joints_m, outputs.predictions.verts_m)
        zipped = write_predictions(workdir / "eval" / "pred.json", hands)
        print(f"Predictions for submission: {zipped}")
    return rows


def test_set_batches(config: Config, data: Path) -> Iterator[Batch]:
    """This process's shard of the test set, in official order."""
    return loader.eval_batches(
        data,
        config.eval.batch_size,
        threads=config.data.loader.threads,
        **processes.process_shard(),
    )
