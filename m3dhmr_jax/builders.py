"""From the config to the parts that training, evaluation and prediction share."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import optax
from flax import nnx

from m3dhmr_jax import optim, sharding
from m3dhmr_jax.checkpoint import Checkpoints
from m3dhmr_jax.hand import HandModel, hand_id, load_builtin, load_mano
from m3dhmr_jax.mesh.hierarchy import MeshTables, build_tables, tables_id
from m3dhmr_jax.mesh.spirals import roi_spirals
from m3dhmr_jax.mesh.tables_file import load_tables
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.step import TrainState, first_state
from m3dhmr_jax.types import Config


class Network(NamedTuple):
    """A network as pure data: what it computes, in training and in use, and its first arrays."""

    graphdef: Any  # Updates the BatchNorm statistics.
    eval_graphdef: Any  # Reads them.
    params: Any
    stats: Any
    image_size: int
    belongs_to: dict[str, Any]  # What its checkpoints fit.


def load_hand(config: Config) -> HandModel:
    """The hand that `config.hand` names: the path of the user's MANO_RIGHT.pkl, or the built-in.

    Raises:
        FileNotFoundError, ValueError: as `load_mano`.
    """
    return load_mano(config.hand) if config.hand else load_builtin()


def create_network(config: Config, hand: HandModel) -> Network:
    """The network with fresh parameters, drawn from `config.seed`.

    Raises:
        ValueError: if a field of `config.model` has a bad value, or its tables do not fit.
        FileNotFoundError: if the file of its tables is not there.
    """
    fields = dict(config.model)
    tables_file = fields.pop("tables")
    model_config = ModelConfig(**fields)
    tables = create_tables(tables_file, hand, model_config)
    model = M3DHMR(model_config, tables, rngs=nnx.Rngs(config.seed))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return Network(
        graphdef=graphdef,
        eval_graphdef=nnx.graphdef(nnx.view(model, use_running_average=True)),
        params=nnx.to_pure_dict(params),
        stats=nnx.to_pure_dict(stats),
        image_size=model_config.image_size,
        belongs_to={
            "model": dataclasses.asdict(model_config),
            "hand": hand_id(hand),
            "tables": tables_id(tables),
            "optim.ema_decay > 0": config.optim.ema_decay > 0,
        },
    )


def create_tables(path: str, hand: HandModel, model: ModelConfig) -> MeshTables:
    """The tables of a file, or those of the hand where `path` is empty; regions are the hand's.

    Raises:
        ValueError: if the file is no such tables, or they do not fit the hand or the network.
        FileNotFoundError: if it is not there.
    """
    if not path:
        return build_tables(hand, model.spiral_length, model.roi_length, model.roi_dilation)
    tables = load_tables(path)
    finest = tables.levels[0].n_vertices
    if finest != len(hand.vertices):
        raise ValueError(
            f"model.tables={path}: its finest level has {finest} vertices, but the hand has "
            f"{len(hand.vertices)}; tables and hand must be of the same surface"
        )
    lengths = {level.spirals.shape[1] for level in tables.levels}
    if lengths != {model.spiral_length}:
        raise ValueError(
            f"model.spiral_length={model.spiral_length}, but {path} has spirals of "
            f"length {sorted(lengths)}: set the field to their length"
        )
    if not model.roi:
        return tables
    roi = roi_spirals(hand.vertices, hand.faces, hand.regions, model.roi_length, model.roi_dilation)
    return dataclasses.replace(tables, roi_spirals=roi)


def create_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer; raises ValueError if a field of `config.optim` has a bad value."""
    rate = optim.learning_rate(
        config.optim.learning_rate,
        steps_per_epoch,
        config.optim.warmup_epochs,
        config.optim.drop_epochs,
        config.optim.drop_factor,
    )
    return optim.adam(rate, config.optim.clip_norm)


def checkpoints_of(workdir: Path, network: Network) -> Checkpoints:
    return Checkpoints(workdir / "checkpoints", network.belongs_to)


def trained_state(config: Config, network: Network, workdir: Path) -> TrainState:
    """The state of the checkpoint that `config.eval.checkpoint` names, newest or best.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is of another network or hand, damaged, or neither newest nor best.
    """
    which = config.eval.checkpoint
    if which not in ("newest", "best"):
        raise ValueError(f"eval.checkpoint={which!r} must be 'newest' or 'best'")
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no checkpoint here; train with the same --config and --workdir first"
        )
    checkpoints = checkpoints_of(workdir, network)
    optimizer = create_optimizer(config, steps_per_epoch=1)
    like = first_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    like = sharding.replicate(like, sharding.device_mesh())
    found = checkpoints.restore(like, checkpoints.best() if which == "best" else None)
    checkpoints.close()
    if found is None:
        raise FileNotFoundError(
            f"{folder}: no finished checkpoint here; let training reach its first one"
        )
    return found[1]
