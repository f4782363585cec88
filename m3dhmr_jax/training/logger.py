"""What a training run shows and writes while it goes on, and the watch over its numbers."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import tqdm
from absl import logging

from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.evaluate.scoring import format_score
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.training.step import Terms, TrainState, all_finite
from m3dhmr_jax.training.tensorboard import TensorBoardWriter
from m3dhmr_jax.types import Config

MAX_SKIPPED_IN_A_ROW = 10  # More are no accident of a batch: the run itself is lost.


class TrainLogger:
    """Progress line, TensorBoard events, and the watch over the loss.

    A step's terms are looked at while the next step runs, so the device never waits: when they
    arrive, the next batch is read and sent while that step is still being computed. Every process
    watches, the first one shows and writes.
    """

    def __init__(
        self,
        workdir: Path,
        config: Config,
        first: int,
        steps: int,
        checkpoints: Checkpoints,
    ):
        first_process = processes.is_primary()
        self._writer = TensorBoardWriter(workdir / "events" if first_process else None)
        self._every = config.log_every_steps
        self._checkpoints = checkpoints
        self._batch_size = config.batch_size
        self._bar = tqdm.tqdm(
            total=steps * config.batch_size,
            initial=first * config.batch_size,
            unit="img",
            mininterval=1,
            dynamic_ncols=True,
            disable=not first_process,
        )
        self._pending: tuple[int, Any] | None = None
        self.skipped = 0  # Batches, since this start of the run.
        self._skipped_in_a_row = 0

    def __enter__(self) -> "TrainLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._writer.close()

    def step(self, step: int, terms: Terms) -> None:
        """Takes note of a step that was started, and looks at the one before."""
        self.flush()
        self._pending = step, terms

    def flush(self) -> None:
        """Looks at the terms of the last step; raises FloatingPointError if one is not finite."""
        if self._pending is None:
            return
        step, terms = self._pending
        self._pending = None
        values = {name: float(term) for name, term in jax.device_get(terms).items()}
        if values.pop("skipped", 0):
            self._skip(step, values)
            return
        self._skipped_in_a_row = 0
        if not all(map(math.isfinite, values.values())):
            raise self._not_finite(step, f"a loss term is not finite: {values}")
        self._bar.update(self._batch_size)
        if step % self._every == 0:
            self._bar.set_postfix(
                {"step": step} | {name: f"{value:.3f}" for name, value in values.items()}
            )
            for name, value in values.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def _skip(self, step: int, values: dict[str, float]) -> None:
        logging.warning("Step %d: a batch that is not finite was skipped: %s", step, values)
        self.skipped += 1
        self._skipped_in_a_row += 1
        self._bar.update(self._batch_size)
        self._writer.add_scalar("train/skipped", float(self.skipped), step)
        if self._skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            what = f"{MAX_SKIPPED_IN_A_ROW} batches in a row are not finite, the last with {values}"
            raise self._not_finite(step, what)

    def check(self, step: int, state: TrainState) -> None:
        """Raises FloatingPointError if a parameter is not finite: a finite loss may do that."""
        if not all_finite((state.params, state.stats)):
            raise self._not_finite(step, "the loss is finite, but parameters or statistics are not")

    def _not_finite(self, step: int, what: str) -> FloatingPointError:
        self._checkpoints.wait()
        newest = self._checkpoints.newest()
        good = (
            "there is no checkpoint yet"
            if newest is None
            else (f"the last good checkpoint is step {newest} in {self._checkpoints.directory}")
        )
        return FloatingPointError(
            f"step {step}: {what}; {good}. Lower optim.learning_rate, or compute in float32"
        )

    def scores(self, step: int, scores: dict[str, float], reported_metrics: Iterable[str]) -> None:
        """Writes the scores of a test set, and prints the reported ones."""
        for name, value in scores.items():
            self._writer.add_scalar(f"eval/{name}", value, step)
        if scores:
            line = ", ".join(
                f"{name} {format_score(name, scores[name])}" for name in reported_metrics
            )
            self._bar.write(f"step {step}: {line}")
