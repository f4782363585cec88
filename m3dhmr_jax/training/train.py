"""A training run, from its start or from its newest checkpoint."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from absl import logging
from clu import parameter_overview

from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.checkpoints.restore import initialize_from, open_checkpoints
from m3dhmr_jax.checkpoints.run_config import save_config
from m3dhmr_jax.config_fields import read_config
from m3dhmr_jax.data import loader
from m3dhmr_jax.datasets import open_dataset, open_mix
from m3dhmr_jax.evaluate.run import test_set_batches
from m3dhmr_jax.evaluate.scoring import score_batches
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.runtime import processes, sharding
from m3dhmr_jax.runtime.files import expand_home
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.runtime.preemption import Preempted
from m3dhmr_jax.runtime.preemption_guard import PreemptionGuard
from m3dhmr_jax.tasks import Task, create_task
from m3dhmr_jax.training.logger import TrainLogger
from m3dhmr_jax.training.optim import create_optimizer
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.training.step import TrainState, create_step, init_state
from m3dhmr_jax.types import Batch, Config


@single_precision()
@expand_home
def train(config: Config, workdir: Path) -> None:
    """Trains to the last epoch, resuming from the newest checkpoint in `workdir` if there is one.

    Raises:
        UserError: for a bad field, dataset or checkpoint.
        FloatingPointError: if a loss term, or a parameter to be saved, is not finite.
        OSError: if a checkpoint cannot be written.
        Preempted: after SIGTERM, once the current step is saved.
    """
    config = read_config(config)
    sharding.check_divides(config.batch_size, "batch_size")
    sharding.check_microbatches(config.batch_size, config.optim.accumulate_steps)
    sharding.check_divides(config.eval.batch_size, "eval.batch_size")
    hand = load_hand(config)
    task = create_task(config, hand, abstract=True)
    checkpoints = open_checkpoints(workdir, task.network)
    data = open_dataset(hand, **config.data.source)
    mix = open_mix(hand, config.data.mix)
    sets = (data, *(each for each, _ in mix))
    schedule = Schedule.of(config, sum(loader.size(each, "train") for each in sets))
    mesh = sharding.device_mesh()
    optimizer = create_optimizer(config, schedule.steps_per_epoch)
    state = create_state(config, task.network, optimizer, checkpoints, mesh)
    print(parameter_overview.get_parameter_overview(jax.device_get(state.params)))
    save_config(workdir, config)  # Only now: a rejected config must not replace the run's.
    train_step = create_step(config, task, optimizer, schedule, mesh)
    evaluate = create_evaluator(config, task, data, mesh)
    first_step, key = int(state.step), jax.random.key(config.seed)
    batches = loader.train_batches(
        data,
        config.batch_size,
        config.seed,
        mix=mix,
        coverage=config.appearance.background[0] > 0,
        start_step=first_step,
        **processes.process_shard(),
        **config.data.loader,
    )
    log = TrainLogger(
        workdir,
        checkpoints,
        log_every_steps=config.log_every_steps,
        batch_size=config.batch_size,
        first_step=first_step,
        steps=schedule.steps,
    )
    stopping = False
    with PreemptionGuard() as sigterm, contextlib.closing(batches), log:
        for step, batch in zip(range(first_step + 1, schedule.steps + 1), batches, strict=False):
            state, terms = train_step(state, sharding.shard(batch, mesh), key)
            log.step(step, terms)
            stopping = sigterm.should_stop(step)
            scored, saved = schedule.evaluates(step), schedule.saves(step) or stopping
            if scored or saved:
                log.flush()
                log.check(step, state)
                scores = evaluate(state) if scored else {}
                log.scores(step, scores, task.reported_metrics)
                checkpoints.save(step, state, scores, scores.get(task.best_metric))
            if stopping:
                break
        checkpoints.close()
    if batches.skipped:
        logging.warning("%d images could not be read and were skipped", len(batches.skipped))
    if log.skipped:
        logging.warning("%d batches were not finite and were skipped", log.skipped)
    if stopping:
        raise Preempted(
            f"by SIGTERM after step {int(state.step)} of {schedule.steps}, which is saved in "
            f"{checkpoints.directory}; the same command resumes from there"
        )


def create_state(
    config: Config,
    network: Network,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """The newest valid checkpoint's state; if there is no checkpoint, an initial one.

    `network` is abstract: parameters are initialised only where no checkpoint replaces them.
    """

    def new_state(params: Any, stats: Any) -> TrainState:
        return init_state(params, stats, optimizer, config.optim.ema_decay)

    shapes = jax.eval_shape(new_state, network.params, network.stats)
    found = checkpoints.restore(sharding.replicated_shapes(shapes, mesh))
    if found is None:
        network = initialize_from(network.initialized(), config.init_from)
        return sharding.replicate(new_state(network.params, network.stats), mesh)
    step, state, _ = found
    print(f"Resuming from step {step} of {checkpoints.directory}")
    return state


def create_evaluator(
    config: Config, task: Task, data: Path, mesh: jax.sharding.Mesh
) -> Callable[[TrainState], dict[str, float]]:
    """A function from a state to its scores on the test set."""

    def evaluate_batch(batch: Batch, params: Any, stats: Any) -> Any:
        return task.error_fn(task.predict_step(params, stats, batch), batch)

    eval_step = sharding.data_parallel(evaluate_batch, mesh)

    def evaluate(state: TrainState) -> dict[str, float]:
        return score_batches(
            lambda batch: eval_step(batch, state.eval_params, state.stats),
            test_set_batches(config, data),
            task.scores,
        )

    return evaluate
