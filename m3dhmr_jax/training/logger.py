"""What a training run shows and records: progress line, TensorBoard scalars, non-finite numbers."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import tqdm
from absl import logging
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.metrics.reported import format_score
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.training.step import Terms, TrainState, all_finite

MAX_SKIPPED_IN_A_ROW = 10  # More are not an accident of a batch: the run has diverged.


class TensorBoardWriter:
    """Scalars over steps, in a new file of `folder`; None drops them.

    A failed write is logged once and does not stop the run. tensorboardX's own `SummaryWriter`
    writes in a thread that dies on a full disk, and then waits for it forever.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._writer = None
        self._failed = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if self._writer is None:
            return
        event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._log_failure(error)

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._log_failure(error)

    def _log_failure(self, error: OSError) -> None:
        if not self._failed:
            logging.error("%s: TensorBoard scalars are being lost: %s", self._folder, error)
        self._failed = True


class TrainLogger:
    """Progress line, TensorBoard scalars, and a check that the loss is finite.

    The terms of a step are read while the next step runs, so the device never waits for the log.
    Every process checks; only the primary one shows and writes.

    Args:
        first_step: steps taken before this start of the run.
        steps: steps of the complete run.
    """

    def __init__(
        self,
        workdir: Path,
        checkpoints: Checkpoints,
        *,
        log_every_steps: int,
        batch_size: int,
        first_step: int,
        steps: int,
    ):
        is_primary = processes.is_primary()
        self._writer = TensorBoardWriter(workdir / "events" if is_primary else None)
        self._log_every_steps = log_every_steps
        self._checkpoints = checkpoints
        self._batch_size = batch_size
        self._bar = tqdm.tqdm(
            total=steps * batch_size,
            initial=first_step * batch_size,
            unit="img",
            mininterval=1,
            dynamic_ncols=True,
            disable=not is_primary,
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
        """Notes that a step was started, and logs the one before."""
        self.flush()
        self._pending = step, terms

    def flush(self) -> None:
        """Logs the terms of the last step; raises FloatingPointError if one is not finite."""
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
        if step % self._log_every_steps == 0:
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
        """Raises FloatingPointError if a parameter is not finite, which a finite loss may cause."""
        if not all_finite((state.params, state.stats)):
            raise self._not_finite(step, "the loss is finite, but parameters or statistics are not")

    def _not_finite(self, step: int, what: str) -> FloatingPointError:
        self._checkpoints.wait()
        newest = self._checkpoints.newest()
        good = (
            "there is no checkpoint yet"
            if newest is None
            else f"the last good checkpoint is step {newest} in {self._checkpoints.directory}"
        )
        return FloatingPointError(
            f"step {step}: {what}; {good}. Lower optim.learning_rate, or compute in float32"
        )

    def scores(self, step: int, scores: dict[str, float], reported_metrics: Iterable[str]) -> None:
        """Writes the scores on a test set, and prints the reported ones."""
        for name, value in scores.items():
            self._writer.add_scalar(f"eval/{name}", value, step)
        if scores:
            line = ", ".join(
                f"{name} {format_score(name, scores[name])}" for name in reported_metrics
            )
            self._bar.write(f"step {step}: {line}")
