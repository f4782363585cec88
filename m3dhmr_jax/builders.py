"""From the config to the hand, the mesh hierarchy and the network."""

import dataclasses
from typing import Any

from flax import nnx

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel, hand_id
from m3dhmr_jax.hand.mano import load_mano_or_builtin
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, build_hierarchy, hierarchy_id
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from m3dhmr_jax.mesh.spirals import roi_spirals
from m3dhmr_jax.models.functional import Network, functional_network
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.models.pretrain2d import Pretrain2D
from m3dhmr_jax.types import Config


def load_hand(config: Config) -> HandModel:
    """The hand of `config.hand`: the path of the user's MANO_RIGHT.pkl; default: the built-in."""
    return load_mano_or_builtin(config.hand)


def create_network(config: Config, hand: HandModel, *, abstract: bool = False) -> Network:
    """The network, initialised from `config.seed`.

    If `abstract`, its parameters are `jax.ShapeDtypeStruct`s, to be replaced by restored arrays:
    initialising takes a fresh process a quarter of a minute.

    Raises:
        UserError: if a field of `config.model` has a bad value, the hierarchy does not fit, or the
            task does not train a mesh.
    """
    if config.task != "mesh":
        raise UserError(
            f"task={config.task!r} trains a part of the network, which does not predict a mesh; "
            "start a complete one from it: --config=configs/resnet18.py "
            "--config.init_from=<its workdir>"
        )
    hierarchy_file, model_config = _model_config(config)
    hierarchy = create_hierarchy(hierarchy_file, hand, model_config)
    return functional_network(
        lambda: M3DHMR(model_config, hierarchy, rngs=nnx.Rngs(config.seed)),
        abstract=abstract,
        image_size=model_config.image_size,
        compatibility={"hand": hand_id(hand), "hierarchy": hierarchy_id(hierarchy)}
        | _compatibility(config, model_config),
    )


def create_pretraining(config: Config, *, abstract: bool = False) -> Network:
    """The part of that network that is pre-trained in 2D, with its own heads.

    `abstract` as in `create_network`.

    Raises:
        UserError: if a field of `config.model` has a bad value.
    """
    _, model_config = _model_config(config)
    return functional_network(
        lambda: Pretrain2D(model_config, rngs=nnx.Rngs(config.seed)),
        abstract=abstract,
        image_size=model_config.image_size,
        compatibility=_compatibility(config, model_config),
    )


def _model_config(config: Config) -> tuple[str, ModelConfig]:
    fields = dict(config.model)
    return fields.pop("hierarchy"), ModelConfig(**fields)


def _compatibility(config: Config, model_config: ModelConfig) -> dict[str, Any]:
    fields = dataclasses.asdict(model_config)
    for name in ("remat", "frozen_blocks"):  # How it trains: a run may resume with other values.
        del fields[name]
    ema = config.optim.ema_decay > 0
    return {"task": config.task, "model": fields, "optim.ema_decay > 0": ema}


def create_hierarchy(path: str, hand: HandModel, model: ModelConfig) -> MeshHierarchy:
    """The hierarchy in the file `path`; default: built from the hand. Regions are those of `hand`.

    Raises:
        UserError: if the file is missing or not a hierarchy, or does not fit the hand or the
            network.
    """
    if not path:
        return build_hierarchy(hand, model.spiral_length, model.roi_length, model.roi_dilation)
    hierarchy = load_hierarchy(path)
    finest = hierarchy.levels[0].n_vertices
    if finest != len(hand.verts_m):
        raise UserError(
            f"model.hierarchy={path}: its finest level has {finest} vertices, but the hand has "
            f"{len(hand.verts_m)}; both must describe the same surface"
        )
    lengths = {level.spirals.shape[1] for level in hierarchy.levels}
    if lengths != {model.spiral_length}:
        raise UserError(
            f"model.spiral_length={model.spiral_length}, but {path} has spirals of "
            f"length {sorted(lengths)}: set the field to their length"
        )
    if not model.roi:
        return hierarchy
    roi = roi_spirals(hand.verts_m, hand.faces, hand.regions, model.roi_length, model.roi_dilation)
    return dataclasses.replace(hierarchy, roi_spirals=roi)
