"""Checkpoints: atomic, written in the background, verified bit by bit when they are read.

A checkpoint holds the arrays of a training state, and as JSON the config that they are compatible
with, their scores and their SHA-256. The newest and the best are kept. The position in the data
needs no entry: it follows from the step.
"""

import contextlib
import dataclasses
import errno
import json
import logging as python_logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy
from orbax.checkpoint.future import CommitFutureAwaitingContractedSignals, Future

from m3dhmr_jax.checkpoints.digest import digest_arrays
from m3dhmr_jax.checkpoints.weights import Arrays, flatten
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.runtime.files import DiskFullError, disk_full_reason

Content = TypeVar("Content")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: created if it does not exist.
        compatibility: what the arrays fit: any JSON tree, stored, and compared on restoring.
    """

    def __init__(self, directory: Path, compatibility: dict[str, Any]):
        python_logging.getLogger("absl").addFilter(_drop_orbax_logs)
        self.directory = directory.absolute()
        self._saving_step: int | None = None
        self.compatibility = json.loads(json.dumps(compatibility))  # As it will be read back.
        keep = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(1),
                preservation_policy.BestN(
                    get_metric_fn=_error,
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep, best_fn=_error, best_mode="min"
            ),
        )

    def save(
        self, step: int, state: Any, scores: dict[str, float], error: float | None = None
    ) -> None:
        """Copies the arrays to the host; they may be donated when this returns.

        Hashing and writing continue in the background. The smallest `error` makes the best
        checkpoint; None: not evaluated.

        Raises:
            OSError: if the previous one could not be written, or this one cannot be started.
        """
        self.wait()
        self._saving_step = step
        meta = {"compatibility": self.compatibility, "scores": scores}
        arrays = flatten(state) if processes.is_primary() else {}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=_MetaSave(meta, arrays))
        metrics = {} if error is None else {"error": error}
        with self._explain_write_errors():
            if step in self._manager.all_steps():  # It was corrupted; training is here again.
                self._manager.delete(step)
            self._manager.save(step, args=args, metrics=metrics, force=True)

    def wait(self) -> None:
        """Returns when everything is written; raises OSError if it cannot be."""
        with self._explain_write_errors():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written; raises as `wait`."""
        with self._explain_write_errors():
            self._manager.close()

    @contextlib.contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        """Orbax writes in threads and reports their errors, of any type, at the next call."""
        try:
            yield
        except Exception as error:
            step, reason = self._saving_step, disk_full_reason(error)
            if processes.is_primary():
                shutil.rmtree(self.directory / f"{step}.orbax-checkpoint-tmp", ignore_errors=True)
            self._manager.reload()
            newest = self.newest()
            kept = "there is none yet" if newest is None else f"the newest is that of step {newest}"
            message = (
                f"the checkpoint of step {step} could not be written "
                f"({reason or _first_line(error)}); {kept}. Make this folder writable, then "
                "start the same command again: it resumes from the newest"
            )
            if reason:
                raise DiskFullError(f"{self.directory}: {message}") from error
            raise OSError(errno.EIO, message, str(self.directory)) from error

    def newest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the smallest error, or the newest where none was scored."""
        best = self._manager.best_step()
        return self.newest() if best is None else best

    def restore(
        self, like: Any, step: int | None = None
    ) -> tuple[int, Any, dict[str, float]] | None:
        """Step, arrays and scores of the newest valid checkpoint, at most `step`; None: none there.

        `like` has the tree, shapes, dtypes and shardings that the arrays must have. A corrupted
        checkpoint is logged and the next older one taken.

        Raises:
            UserError: if it is of another network or hand, or every checkpoint is corrupted.
        """
        found = self._newest_valid(lambda step: self._read(step, like), step)
        if found is None:
            return None
        step, (state, meta) = found
        return step, state, meta["scores"]

    def restore_anything(
        self, step: int | None = None, *, compatible: bool = False
    ) -> tuple[int, dict[str, Any]] | None:
        """Step and host arrays of the newest valid checkpoint, at most `step`; None: none there.

        The tree has dicts with string keys in place of every container that was saved. It may be
        of any network, unless it must be `compatible`, which is checked as in `restore`.
        """
        return self._newest_valid(lambda step: self._read_anything(step, compatible), step)

    def _newest_valid(
        self, read: Callable[[int], Content], newest: int | None
    ) -> tuple[int, Content] | None:
        steps = sorted(self._manager.all_steps(), reverse=True)
        steps = [s for s in steps if newest is None or s <= newest]
        for candidate in steps:
            corruption, content = None, None
            try:
                content = read(candidate)
            except _CorruptedError as error:
                corruption = error
            if processes.any_process(corruption is not None):
                logging.error(
                    "Checkpoint %d in %s is corrupted (%s); trying an older one",
                    candidate,
                    self.directory,
                    corruption or "according to another process",
                )
                continue
            if candidate != steps[0]:
                logging.error(
                    "Resuming from step %d; %d steps are lost", candidate, steps[0] - candidate
                )
            return candidate, cast(Content, content)
        if steps:
            raise UserError(
                f"{self.directory}: all checkpoints (steps {steps}) are corrupted; restore the "
                "folder from a backup, or start again in another --workdir"
            )
        return None

    def _read_meta(self, step: int) -> dict[str, Any]:
        with _corruption_errors():
            args = ocp.args.Composite(meta=_MetaRestore())
            meta = self._manager.restore(step, args=args)["meta"]
            return {name: meta[name] for name in ("compatibility", "sha256", "scores")}

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        meta = self._read_meta(step)
        self._check_compatible(step, meta)
        return self._read_state(step, like, meta["sha256"]), meta

    def _check_compatible(self, step: int, meta: dict[str, Any]) -> None:
        differing = _differences(meta["compatibility"], self.compatibility)
        if differing:
            raise UserError(
                f"checkpoint {step} in {self.directory} is of another network or hand: "
                f"{'; '.join(differing)}; use the config it was trained with or another workdir"
            )

    def _read_anything(self, step: int, compatible: bool) -> dict[str, Any]:
        meta = self._read_meta(step)
        if compatible:
            self._check_compatible(step, meta)
        folder = self.directory / str(step) / "state"
        with _corruption_errors(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            leaves = reader.metadata(folder).item_metadata.tree
            # To the host: it may have been written on more devices than there are.
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), leaves)
        return self._read_state(step, like, meta["sha256"])

    def _read_state(self, step: int, like: Any, sha256: str) -> Any:
        with _corruption_errors():
            args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
            state = self._manager.restore(step, args=args)["state"]
        if digest(state) != sha256:
            raise _CorruptedError("its arrays are not those that were written")
        return state


class _MetaHandler(ocp.JsonCheckpointHandler):
    """Writes JSON, with the SHA-256 of the arrays, which is computed in the background.

    Orbax gives a checkpoint its name when all of its files are there, this one included.
    """

    async def async_save(
        self, directory: Any, item: Any = None, args: "_MetaSave | None" = None
    ) -> list[Future]:
        assert args is not None
        return [CommitFutureAwaitingContractedSignals(self._write(directory, args), name="meta")]

    async def _write(self, directory: Any, args: "_MetaSave") -> None:
        if processes.is_primary():
            content = args.content | {"sha256": digest(args.arrays)}
            (directory / "metadata").write_text(json.dumps(content))


@ocp.args.register_with_handler(_MetaHandler, for_save=True)
@dataclasses.dataclass
class _MetaSave(ocp.args.CheckpointArgs):
    content: dict[str, Any]
    arrays: Arrays


@ocp.args.register_with_handler(_MetaHandler, for_restore=True)
@dataclasses.dataclass
class _MetaRestore(ocp.args.CheckpointArgs):
    pass


class _CorruptedError(Exception):
    pass


@contextlib.contextmanager
def _corruption_errors() -> Iterator[None]:
    """Orbax reports a corrupted file by one of many exceptions and pages of log."""
    previous = python_logging.root.manager.disable
    python_logging.disable(python_logging.CRITICAL)
    try:
        yield
    except Exception as error:
        raise _CorruptedError(_first_line(error)) from error
    finally:
        python_logging.disable(previous)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def _drop_orbax_logs(record: python_logging.LogRecord) -> bool:
    """Its threads log one error in pages, several times; `Checkpoints` raises it once."""
    return "/orbax/" not in record.pathname.replace("\\", "/")


def _error(metrics: dict[str, float] | None) -> float:
    value = (metrics or {}).get("error", math.inf)
    return value if math.isfinite(value) else math.inf  # NaN would win every comparison.


def _differences(found: Any, expected: Any, name: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted(found.keys() | expected.keys())
        return [
            line
            for key in keys
            for line in _differences(found.get(key), expected.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if found == expected else [f"{name} is {found} there and {expected} here"]


def digest(tree: Any) -> str:
    """SHA-256 of the leaves under their names, as of `digest_arrays`."""
    return digest_arrays(flatten(tree))
