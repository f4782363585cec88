"""Checkpoints: atomic, written in the background, checked bit by bit when they are read.

A checkpoint holds the arrays of a training state and a description of what they belong to. The
newest and the best are kept. Positions in the data need no room: they follow from the step.
"""

import contextlib
import hashlib
import json
import logging as python_logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

METRIC = "pa_mpvpe_mm"  # The smaller, the better.


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: made if it is not there.
        belongs_to: what the arrays fit: any JSON tree, stored and compared when they are read.
    """

    def __init__(self, directory: Path, belongs_to: dict[str, Any]):
        self.directory = directory.absolute()
        self.belongs_to = json.loads(json.dumps(belongs_to))  # As it will be read back.
        keep = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(1),
                preservation_policy.BestN(
                    get_metric_fn=_metric,
                    reverse=True,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep, best_fn=_metric, best_mode="min"
            ),
        )

    def save(self, step: int, state: Any, scores: dict[str, float]) -> None:
        """Starts to write; the arrays may be changed or given away when this returns."""
        meta = {"belongs_to": self.belongs_to, "sha256": digest(state), "scores": scores}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
            metrics=scores,
            force=True,
        )

    def wait(self) -> None:
        """Returns when all is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def newest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the smallest METRIC, or the newest where none was scored."""
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
        steps = sorted(self._manager.all_steps(), reverse=True)
        steps = [s for s in steps if step is None or s <= step]
        for candidate in steps:
            try:
                state, meta = self._read(candidate, like)
            except _DamagedError as damage:
                logging.error(
                    "Checkpoint %d in %s is damaged (%s); trying an older one",
                    candidate,
                    self.directory,
                    damage,
                )
                continue
            if candidate != steps[0]:
                logging.error(
                    "Going on from step %d; %d steps are lost", candidate, steps[0] - candidate
                )
            return candidate, state, meta["scores"]
        if steps:
            raise ValueError(
                f"{self.directory}: all checkpoints (steps {steps}) are damaged; "
                "delete the folder to start anew, or restore it from a backup"
            )
        return None

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        with _damage_in_one_sentence():
            meta = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )["meta"]
            found, sha256 = meta["belongs_to"], meta["sha256"]
        differing = _differences(found, self.belongs_to)
        if differing:
            raise ValueError(
                f"checkpoint {step} in {self.directory} belongs to another network or hand: "
                f"{'; '.join(differing)}; use the config it was trained with or another workdir"
            )
        with _damage_in_one_sentence():
            state = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
            )["state"]
        if digest(state) != sha256:
            raise _DamagedError("its arrays are not those that were written")
        return state, meta


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
        lines = str(error).strip().splitlines() or [""]
        raise _DamagedError(f"{type(error).__name__}: {lines[0][:160]}") from error
    finally:
        python_logging.disable(previous)


def _metric(scores: dict[str, float] | None) -> float:
    value = (scores or {}).get(METRIC, math.inf)
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
    """sha256 over all leaves: path, type, shape and bytes."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(jax.device_get(leaf))
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
