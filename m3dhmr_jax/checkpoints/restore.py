"""From checkpoints and weights files to a network: what training starts from, what is evaluated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.checkpoints.weights import (
    LoadReport,
    Weights,
    flatten,
    load_matching,
    load_weights,
    summarize,
)
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.runtime import sharding

NEWEST, BEST = "newest", "best"


class EvalState(NamedTuple):
    """The arrays that evaluation and prediction read: the EMA of parameters where there is one."""

    step: int  # 0 for a weights file, from which training does not resume.
    params: Any
    stats: Any


def open_checkpoints(workdir: Path, network: Network) -> Checkpoints:
    return Checkpoints(workdir / "checkpoints", network.compatibility)


def initialize_from(network: Network, source: str) -> Network:
    """The network with every array that `source` has for it; the rest is unchanged and reported.

    `source` is a weights file, or the workdir of any run, of which the newest checkpoint is read;
    "" leaves the network as it is.

    Raises:
        UserError: if it is missing, corrupted, or nothing in it fits.
    """
    if not source:
        return network
    path = Path(source)
    found = read_run(path) if path.is_dir() else load_weights(path)
    network, reports = _load(network, found)
    lines = [line for _, report in reports for line in summarize(report)]
    if not any(report.used for _, report in reports):
        raise UserError(
            f"init_from={source}: nothing in it fits this network: {'; '.join(lines)}; "
            "compare config.model with the config that it was trained with"
        )
    print(f"Starting from {source}:")
    for kind, report in reports:
        total = len(report.used) + len(report.missing) + len(report.wrong_shape)
        print("; ".join([f"  {len(report.used)} of {total} {kind} used", *summarize(report)]))
    for line in _other_hierarchy(network, found):
        print(f"  {line}")
    return network


def read_run(workdir: Path) -> Weights:
    """The arrays for evaluation in the newest checkpoint of any run, whichever its network.

    Raises:
        UserError: if there is no checkpoint, or all are corrupted.
    """
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{workdir}: neither a weights file nor the workdir of a run")
    checkpoints = Checkpoints(folder, compatibility={})
    step, weights = _read(checkpoints, checkpoints.restore_anything)
    return weights._replace(metadata={"step": str(step)})


def restore_eval_state(network: Network, workdir: Path, checkpoint: str) -> EvalState:
    """The state to evaluate, replicated: a run's "newest" or "best" checkpoint, or a weights file.

    Raises:
        UserError: if there is none, or it is corrupted or of another network or hand.
    """
    step, source = 0, Path(checkpoint)
    if checkpoint in (NEWEST, BEST):
        source = workdir / "checkpoints"
        if not source.is_dir():
            raise UserError(
                f"{source}: no checkpoint here; train with the same --config and --workdir first"
            )
        checkpoints = open_checkpoints(workdir, network)
        at_most = checkpoints.best() if checkpoint == BEST else None
        step, found = _read(
            checkpoints, lambda: checkpoints.restore_anything(at_most, compatible=True)
        )
    elif source.is_file():
        found = load_weights(source)
    else:
        raise UserError(
            f"eval.checkpoint={checkpoint!r} must be 'newest', 'best' or an existing weights file"
        )
    network, reports = _load(network, found)
    lines = [f"{kind}: {line}" for kind, report in reports for line in summarize(report)]
    lines += _other_hierarchy(network, found)
    if lines:
        raise UserError(
            f"{source} does not match this network: {'; '.join(lines)}; "
            "use the config that it was trained with"
        )
    arrays = sharding.replicate((network.params, network.stats), sharding.device_mesh())
    return EvalState(step, *arrays)


def _read(
    checkpoints: Checkpoints, restore: Callable[[], tuple[int, dict[str, Any]] | None]
) -> tuple[int, Weights]:
    found = restore()
    checkpoints.close()
    if found is None:
        raise UserError(
            f"{checkpoints.directory}: no complete checkpoint here; let training reach its first"
        )
    step, state = found
    params = state.get("ema_params") or state["params"]
    return step, Weights(flatten(params), flatten(state["stats"]), {})


def _load(network: Network, found: Weights) -> tuple[Network, list[tuple[str, LoadReport]]]:
    params, params_report = load_matching(network.params, found.params)
    stats, stats_report = load_matching(network.stats, found.stats)
    reports = [("parameters", params_report), ("BatchNorm statistics", stats_report)]
    return network._replace(params=params, stats=stats), reports


def _other_hierarchy(network: Network, found: Weights) -> list[str]:
    """A line if the weights were trained with another mesh hierarchy than the network's."""
    theirs, own = found.metadata.get("hierarchy"), network.compatibility.get("hierarchy")
    if theirs in (None, own):
        return []
    return [f"trained with the mesh hierarchy {theirs}, but that of model.hierarchy here is {own}"]
