"""Checkpoints: atomic, written in the background, checked bit by bit when they are read.

A checkpoint holds the arrays of a training state and a description of what they belong to. The
newest and the best are kept. Positions in the data need no room: they follow from the step.
"""

import contextlib
import hashlib
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

from m3dhmr_jax.checkpoints.weights import flatten
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.runtime.files import DiskFullError, full_disk

Content = TypeVar("Content")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: made if it is not there.
        compatibility: what the arrays fit: any JSON tree, stored and compared when they are read.
    """

    def __init__(self, directory: Path, compatibility: dict[str, Any]):
        python_logging.getLogger("absl").addFilter(_not_of_orbax)
        self.directory = directory.absolute()
        self._being_saved: int | None = None
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
        """Starts to write; the arrays may be changed or given away when this returns.

        The smallest `error` makes the best checkpoint; None is for one that was not scored.

        Raises:
            OSError: if the one before could not be written, or this one cannot be begun.
        """
        self.wait()
        self._being_saved = step
        meta = {"compatibility": self.compatibility, "sha256": digest(state), "scores": scores}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        metrics = {} if error is None else {"error": error}
        with self._loss_named():
            if step in self._manager.all_steps():  # Found damaged, and reached again.
                self._manager.delete(step)
            self._manager.save(step, args=args, metrics=metrics, force=True)

    def wait(self) -> None:
        """Returns when all is written; raises OSError if it cannot be."""
        with self._loss_named():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, too."""
        with self._loss_named():
            self._manager.close()

    @contextlib.contextmanager
    def _loss_named(self) -> Iterator[None]:
        """Orbax writes in threads, and tells of their failures, of any kind, at the next call."""
        try:
            yield
        except Exception as error:
            step, reason = self._being_saved, full_disk(error)
            if processes.is_primary():
                shutil.rmtree(self.directory / f"{step}.orbax-checkpoint-tmp", ignore_errors=True)
            self._manager.reload()
            newest = self.newest()
            kept = "there is none yet" if newest is None else f"the newest is that of step {newest}"
            raise (DiskFullError if reason else OSError)(
                f"{self.directory}: the checkpoint of step {step} could not be written "
                f"({reason or _first_line(error)}); {kept}. Make it possible to write there, and "
                "start the same command again: it goes on from the newest"
            ) from error

    def newest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the smallest error, or the newest where none was scored."""
        best = self._manager.best_step()
        return self.newest() if best is None else best

    def restore(
        self, like: Any, step: int | None = None
    ) -> tuple[int, Any, dict[str, float]] | None:
        """The step, arrays and scores of the newest intact checkpoint, no newer than `step`.

        `like` has the tree, shapes, types and places that the arrays must have. None if there is
        no checkpoint. A damaged one is named and the next older one taken.

        Raises:
            ValueError: if it belongs to another network or hand, or every checkpoint is damaged.
        """
        found = self._newest_intact(lambda step: self._read(step, like), step)
        if found is None:
            return None
        step, (state, meta) = found
        return step, state, meta["scores"]

    def restore_anything(
        self, step: int | None = None, *, compatible: bool = False
    ) -> tuple[int, dict[str, Any]] | None:
        """The step and host arrays of the newest intact checkpoint, no newer than `step`.

        The tree is one of dicts with string keys, whatever it was when it was saved. It may belong
        to any network, unless it has to be `compatible`, which is checked as in `restore`.
        """
        return self._newest_intact(lambda step: self._read_anything(step, compatible), step)

    def _newest_intact(
        self, read: Callable[[int], Content], newest: int | None
    ) -> tuple[int, Content] | None:
        steps = sorted(self._manager.all_steps(), reverse=True)
        steps = [s for s in steps if newest is None or s <= newest]
        for candidate in steps:
            damage, content = None, None
            try:
                content = read(candidate)
            except _DamagedError as found:
                damage = found
            if processes.any_process(damage is not None):
                logging.error(
                    "Checkpoint %d in %s is damaged (%s); trying an older one",
                    candidate,
                    self.directory,
                    damage or "as another process reads it",
                )
                continue
            if candidate != steps[0]:
                logging.error(
                    "Going on from step %d; %d steps are lost", candidate, steps[0] - candidate
                )
            return candidate, cast(Content, content)
        if steps:
            raise ValueError(
                f"{self.directory}: all checkpoints (steps {steps}) are damaged; "
                "delete the folder to start anew, or restore it from a backup"
            )
        return None

    def _read_meta(self, step: int) -> dict[str, Any]:
        with _damage_in_one_sentence():
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta = self._manager.restore(step, args=args)["meta"]
            return {name: meta[name] for name in ("compatibility", "sha256", "scores")}

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        meta = self._read_meta(step)
        self._check_compatible(step, meta)
        return self._read_state(step, like, meta["sha256"]), meta

    def _check_compatible(self, step: int, meta: dict[str, Any]) -> None:
        differing = _differences(meta["compatibility"], self.compatibility)
        if differing:
            raise ValueError(
                f"checkpoint {step} in {self.directory} belongs to another network or hand: "
                f"{'; '.join(differing)}; use the config it was trained with or another workdir"
            )

    def _read_anything(self, step: int, compatible: bool) -> dict[str, Any]:
        meta = self._read_meta(step)
        if compatible:
            self._check_compatible(step, meta)
        folder = self.directory / str(step) / "state"
        with _damage_in_one_sentence(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            leaves = reader.metadata(folder).item_metadata.tree
            # To the host: it may have been written on more devices than there are.
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), leaves)
        return self._read_state(step, like, meta["sha256"])

    def _read_state(self, step: int, like: Any, sha256: str) -> Any:
        with _damage_in_one_sentence():
            args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
            state = self._manager.restore(step, args=args)["state"]
        if digest(state) != sha256:
            raise _DamagedError("its arrays are not those that were written")
        return state


class _DamagedError(Exception):
    pass


@contextlib.contextmanager
def _damage_in_one_sentence() -> Iterator[None]:
    """Orbax answers a broken file with one of many exceptions and pages of log."""
    previous = python_logging.root.manager.disable
    python_logging.disable(python_logging.CRITICAL)
    try:
        yield
    except Exception as error:
        raise _DamagedError(_first_line(error)) from error
    finally:
        python_logging.disable(previous)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def _not_of_orbax(record: python_logging.LogRecord) -> bool:
    """Its threads log one fault in pages, several times; what it raises is said here instead."""
    return "/orbax/" not in record.pathname


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
    """sha256 over all leaves by name: name, type, shape and bytes."""
    total = hashlib.sha256()
    for name, array in sorted(flatten(tree).items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
