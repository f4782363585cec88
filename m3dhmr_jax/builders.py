"""From the config to the parts that training, evaluation and prediction share."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.checkpoints.weights import (
    LoadReport,
    Weights,
    flatten,
    load_matching,
    load_weights,
    summarize,
)
from m3dhmr_jax.hand import HandModel, hand_id, load_builtin, load_mano
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, build_hierarchy, hierarchy_id
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from m3dhmr_jax.mesh.spirals import roi_spirals
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.models.pretrain2d import Pretrain2D
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.training import optim
from m3dhmr_jax.training.step import TrainState, init_state
from m3dhmr_jax.types import Config


class Network(NamedTuple):
    """A network as pure data: what it computes, in training and in use, and its first arrays."""

    graphdef: Any  # Updates the BatchNorm statistics.
    eval_graphdef: Any  # Reads them.
    params: Any  # Arrays, or what has their shapes.
    stats: Any
    image_size: int
    compatibility: dict[str, Any]  # What its checkpoints fit.


def load_hand(config: Config) -> HandModel:
    """The hand that `config.hand` names: the path of the user's MANO_RIGHT.pkl, or the built-in.

    Raises:
        FileNotFoundError, ValueError: as `load_mano`.
    """
    return load_mano(config.hand) if config.hand else load_builtin()


def create_network(config: Config, hand: HandModel, *, abstract: bool = False) -> Network:
    """The network with parameters initialised from `config.seed`.

    If `abstract`, parameters are `jax.ShapeDtypeStruct`s, to be replaced by arrays that are read:
    initialising takes a fresh process a quarter of a minute.

    Raises:
        ValueError: if a field of `config.model` has a bad value, its hierarchy do not fit, or no mesh
            is learned.
        FileNotFoundError: if the file of its hierarchy is not there.
    """
    if config.task != "mesh":
        raise ValueError(
            f"task={config.task!r} trains a part of the network, which predicts no mesh; start a "
            "whole one from it: --config=configs/resnet18.py --config.init_from=<its workdir>"
        )
    hierarchy_file, model_config = _model(config)
    hierarchy = create_hierarchy(hierarchy_file, hand, model_config)
    own = {"hand": hand_id(hand), "hierarchy": hierarchy_id(hierarchy)}

    def model() -> M3DHMR:
        return M3DHMR(model_config, hierarchy, rngs=nnx.Rngs(config.seed))

    return _as_data(model, abstract, config, model_config, own)


def create_pretraining(config: Config, *, abstract: bool = False) -> Network:
    """The part of that network which is trained in 2D first, under heads of its own.

    `abstract` as in `create_network`.

    Raises:
        ValueError: if a field of `config.model` has a bad value.
    """
    _, model_config = _model(config)

    def model() -> Pretrain2D:
        return Pretrain2D(model_config, rngs=nnx.Rngs(config.seed))

    return _as_data(model, abstract, config, model_config, {})


def _model(config: Config) -> tuple[str, ModelConfig]:
    fields = dict(config.model)
    return fields.pop("hierarchy"), ModelConfig(**fields)


def _as_data(
    make: Callable[[], nnx.Module],
    abstract: bool,
    config: Config,
    model_config: ModelConfig,
    compatibility: dict[str, Any],
) -> Network:
    graphdefs = []

    def arrays() -> tuple[Any, Any]:
        model = make()
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        graphdefs.extend((graphdef, nnx.graphdef(nnx.view(model, use_running_average=True))))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    params, stats = jax.eval_shape(arrays) if abstract else arrays()
    fields = dataclasses.asdict(model_config)
    del fields["remat"]  # Changes no number: a run may go on with it or without.
    return Network(
        graphdef=graphdefs[0],
        eval_graphdef=graphdefs[1],
        params=params,
        stats=stats,
        image_size=model_config.image_size,
        compatibility=compatibility
        | {
            "task": config.task,
            "model": fields,
            "optim.ema_decay > 0": config.optim.ema_decay > 0,
        },
    )


def create_hierarchy(path: str, hand: HandModel, model: ModelConfig) -> MeshHierarchy:
    """The hierarchy of a file, or those of the hand where `path` is empty; regions are the hand's.

    Raises:
        ValueError: if the file is no such hierarchy, or they do not fit the hand or the network.
        FileNotFoundError: if it is not there.
    """
    if not path:
        return build_hierarchy(hand, model.spiral_length, model.roi_length, model.roi_dilation)
    hierarchy = load_hierarchy(path)
    finest = hierarchy.levels[0].n_vertices
    if finest != len(hand.verts_m):
        raise ValueError(
            f"model.hierarchy={path}: its finest level has {finest} vertices, but the hand has "
            f"{len(hand.verts_m)}; hierarchy and hand must be of the same surface"
        )
    lengths = {level.spirals.shape[1] for level in hierarchy.levels}
    if lengths != {model.spiral_length}:
        raise ValueError(
            f"model.spiral_length={model.spiral_length}, but {path} has spirals of "
            f"length {sorted(lengths)}: set the field to their length"
        )
    if not model.roi:
        return hierarchy
    roi = roi_spirals(hand.verts_m, hand.faces, hand.regions, model.roi_length, model.roi_dilation)
    return dataclasses.replace(hierarchy, roi_spirals=roi)


def create_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer; raises ValueError if a field of `config.optim` has a bad value."""
    rate = optim.learning_rate(
        config.optim.learning_rate,
        steps_per_epoch,
        config.optim.warmup_epochs,
        config.optim.lr_decay_epochs,
        config.optim.lr_decay_factor,
    )
    return optim.adam(rate, config.optim.clip_norm)


def checkpoints_of(workdir: Path, network: Network) -> Checkpoints:
    return Checkpoints(workdir / "checkpoints", network.compatibility)


def initialised(network: Network, source: str) -> Network:
    """The network with every array that `source` has for it; the rest stays fresh, and is named.

    `source` is the value of `config.init_from`: a weights file, or the workdir of any run, whose
    newest checkpoint is read; "" is nothing.

    Raises:
        FileNotFoundError: if it is not there, or a folder without a checkpoint.
        ValueError: if it is damaged, or nothing in it fits.
    """
    if not source:
        return network
    found = read_run(Path(source)) if Path(source).is_dir() else load_weights(Path(source))
    network, report = _adopt(network, found)
    lines = [line for _, adopted in report for line in summarize(adopted)]
    if not any(adopted.used for _, adopted in report):
        raise ValueError(
            f"init_from={source}: nothing in it fits this network: {'; '.join(lines)}; "
            "compare config.model with what it was made from"
        )
    print(f"Starting from {source}:")
    for kind, adopted in report:
        total = len(adopted.used) + len(adopted.missing) + len(adopted.wrong_shape)
        print("; ".join([f"  {len(adopted.used)} of {total} {kind} used", *summarize(adopted)]))
    for line in _other_tables(network, found):
        print(f"  {line}")
    return network


def read_run(workdir: Path) -> Weights:
    """What evaluation reads of a run's newest checkpoint, be it of this network or another.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if all are damaged.
    """
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(f"{workdir}: neither a weights file nor the workdir of a run")
    checkpoints = Checkpoints(folder, compatibility={})
    found = checkpoints.restore_anything()
    checkpoints.close()
    if found is None:
        raise FileNotFoundError(f"{folder}: no finished checkpoint here")
    step, state = found
    params = state.get("ema_params") or state["params"]
    return Weights(flatten(params), flatten(state["stats"]), {"step": str(step)})


def _adopt(network: Network, found: Weights) -> tuple[Network, list[tuple[str, LoadReport]]]:
    params, of_params = load_matching(network.params, found.params)
    stats, of_stats = load_matching(network.stats, found.stats)
    report = [("parameters", of_params), ("BatchNorm statistics", of_stats)]
    return network._replace(params=params, stats=stats), report


def _other_tables(network: Network, found: Weights) -> list[str]:
    """A line if the weights say that they fit other mesh hierarchy than the network's."""
    theirs, own = found.metadata.get("hierarchy"), network.compatibility.get("hierarchy")
    if theirs in (None, own):
        return []
    return [
        f"it was made for the mesh hierarchy {theirs}, but those of model.hierarchy here are {own}"
    ]


def _state_of_file(network: Network, path: Path) -> TrainState:
    if not path.is_file():
        raise ValueError(
            f"eval.checkpoint={str(path)!r} must be 'newest', 'best' or a weights file, "
            "and there is no such file"
        )
    found = load_weights(path)
    network, report = _adopt(network, found)
    lines = [f"{kind}: {line}" for kind, adopted in report for line in summarize(adopted)]
    lines += _other_tables(network, found)
    if lines:
        raise ValueError(
            f"{path} is not of this network, so its answers would be no one's: {'; '.join(lines)}; "
            "use the config it was made for"
        )
    state = TrainState(jnp.zeros((), jnp.int32), network.params, network.stats, (), None)
    return sharding.replicate(state, sharding.device_mesh())


def trained_state(config: Config, network: Network, workdir: Path) -> TrainState:
    """The state that `config.eval.checkpoint` names: newest, best, or in a weights file.

    That of a file has step 0, as it does not go on from there.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is of another network or hand, damaged, or nothing of that name.
    """
    which = config.eval.checkpoint
    if which not in ("newest", "best"):
        return _state_of_file(network, Path(which))
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no checkpoint here; train with the same --config and --workdir first"
        )
    checkpoints = checkpoints_of(workdir, network)
    optimizer = create_optimizer(config, steps_per_epoch=1)
    like = jax.eval_shape(
        lambda params, stats: init_state(params, stats, optimizer, config.optim.ema_decay),
        network.params,
        network.stats,
    )
    like = sharding.replicated_shapes(like, sharding.device_mesh())
    found = checkpoints.restore(like, checkpoints.best() if which == "best" else None)
    checkpoints.close()
    if found is None:
        raise FileNotFoundError(
            f"{folder}: no finished checkpoint here; let training reach its first one"
        )
    return found[1]
