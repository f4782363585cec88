"""A training run, from nothing or from where it stopped."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from absl import logging
from clu import parameter_overview

from m3dhmr_jax.builders import Network, checkpoints_of, create_optimizer, initialised, load_hand
from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.checkpoints.run_config import save_config
from m3dhmr_jax.data import loader
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.datasets import open_dataset
from m3dhmr_jax.evaluate.scoring import score_batches
from m3dhmr_jax.runtime import processes, sharding
from m3dhmr_jax.runtime.preemption import Preempted, PreemptionGuard
from m3dhmr_jax.tasks import Task, create_task
from m3dhmr_jax.training.logger import TrainLogger
from m3dhmr_jax.training.step import (
    Objective,
    Terms,
    TrainState,
    init_state,
    make_train_step,
    skipping_nonfinite,
)
from m3dhmr_jax.types import Batch, Config


def train(config: Config, workdir: Path) -> None:
    """Trains to the last epoch, going on from the newest checkpoint in `workdir` if there is one.

    Raises:
        ValueError, TypeError, FileNotFoundError: for a bad field, dataset or checkpoint, named.
        FloatingPointError: if a loss term, or a parameter to be saved, is not finite.
        OSError: if a checkpoint cannot be written.
        Preempted: after SIGTERM, when the step under way is saved.
    """
    sharding.check_divides(config.batch_size, "batch_size")
    sharding.check_microbatches(config.batch_size, config.optim.accumulate_steps)
    sharding.check_divides(config.eval.batch_size, "eval.batch_size")
    hand = load_hand(config)
    task = create_task(config, hand)
    checkpoints = checkpoints_of(workdir, task.network)
    network = task.network
    if checkpoints.newest() is None:
        network = initialised(network, config.init_from)
    data = open_dataset(hand, **config.data.source)
    schedule = Schedule.of(config, loader.size(data, "train"))
    print(parameter_overview.get_parameter_overview(network.params))

    mesh = sharding.device_mesh()
    optimizer = create_optimizer(config, schedule.steps_per_epoch)
    state = create_state(config, network, optimizer, checkpoints, mesh)
    save_config(workdir, config)  # Only now: a config that is refused must not replace the run's.
    train_step = create_step(config, task, optimizer, schedule, mesh)
    evaluate = create_evaluator(config, task, data, mesh)
    first, key = int(state.step), jax.random.key(config.seed)
    batches = loader.train_batches(
        data,
        config.batch_size,
        config.seed,
        start_step=first,
        **processes.process_shard(),
        **config.data.loader,
    )
    stopping = False
    with (
        PreemptionGuard() as sigterm,
        contextlib.closing(batches),
        TrainLogger(workdir, config, first, schedule.steps, checkpoints) as log,
    ):
        for step, batch in zip(range(first + 1, schedule.steps + 1), batches, strict=False):
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
        logging.warning("%d photos could not be read and were skipped", len(batches.skipped))
    if log.skipped:
        logging.warning("%d batches were not finite and were skipped", log.skipped)
    if stopping:
        raise Preempted(
            f"by SIGTERM after step {int(state.step)} of {schedule.steps}, which is saved in "
            f"{checkpoints.directory}; the same command goes on from there"
        )


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps."""

    steps: int
    steps_per_epoch: int
    save_every: int
    evaluate_every: int

    @classmethod
    def of(cls, config: Config, n_examples: int) -> "Schedule":
        """Raises ValueError if there is less than one batch, or an interval is not positive."""
        steps_per_epoch = n_examples // config.batch_size
        if not steps_per_epoch:
            raise ValueError(
                f"batch_size={config.batch_size} is larger than the training set of {n_examples}"
            )
        intervals = {
            "epochs": config.epochs,
            "checkpoint_every_epochs": config.checkpoint_every_epochs,
            "eval.every_epochs": config.eval.every_epochs,
        }
        for name, epochs in intervals.items():
            if not epochs > 0:
                raise ValueError(f"{name}={epochs} must be positive: it is a number of epochs")
        steps, *every = (max(round(e * steps_per_epoch), 1) for e in intervals.values())
        return cls(steps, steps_per_epoch, *every)

    def saves(self, step: int) -> bool:
        return step == self.steps or step % self.save_every == 0

    def evaluates(self, step: int) -> bool:
        return step == self.steps or step % self.evaluate_every == 0


def create_state(
    config: Config,
    network: Network,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    mesh: jax.sharding.Mesh,
) -> TrainState:
    """The newest checkpoint's state, or a first one."""
    state = init_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    state = sharding.replicate(state, mesh)
    found = checkpoints.restore(state)
    if found is None:
        return state
    step, state, _ = found
    print(f"Going on from step {step} of {checkpoints.directory}")
    return state


def create_step(
    config: Config,
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, Terms]]:
    """The jitted step; its first argument is consumed."""
    start_step = {
        name: round(epoch * schedule.steps_per_epoch) for name, epoch in task.start_epoch.items()
    }
    step = make_train_step(
        task.network.graphdef,
        task.loss_terms_fn,
        optimizer,
        Objective(dict(config.loss.weights), start_step),
        AugmentConfig(size=task.network.image_size, **config.augment),
        config.optim.ema_decay,
        config.optim.accumulate_steps,
    )
    if config.optim.skip_nonfinite:
        step = skipping_nonfinite(step)
    return sharding.jit_step(step, mesh)


def create_evaluator(
    config: Config, task: Task, data: Path, mesh: jax.sharding.Mesh
) -> Callable[[TrainState], dict[str, float]]:
    """Scores a state on the test set."""

    def error_fn(batch: Batch, params: Any, stats: Any) -> Any:
        return task.error_fn(task.predict_step(params, stats, batch), batch)

    judge = sharding.data_parallel(error_fn, mesh)

    def evaluate(state: TrainState) -> dict[str, float]:
        batches = loader.eval_batches(data, config.eval.batch_size, **processes.process_shard())
        weights = state.eval_params, state.stats
        return score_batches(lambda batch: judge(batch, *weights), batches, task.scores)

    return evaluate
