"""The fields of a config: which there are, and which values they may have.

Fields of single parts, such as `config.model`, are checked by these; here is what would otherwise
fail inside of a library or without the field's name.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from m3dhmr_jax.data.appearance import AppearanceConfig
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.network import ModelConfig
from m3dhmr_jax.runtime.files import user_path
from m3dhmr_jax.types import Config


def _fields(section: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{section}.{name}" for name in names)


_MODEL = tuple(field.name for field in dataclasses.fields(ModelConfig))
_APPEARANCE = tuple(field.name for field in dataclasses.fields(AppearanceConfig))
_AUGMENT = tuple(
    field.name
    for field in dataclasses.fields(AugmentConfig)
    if field.name not in ("size", "appearance")
)
# What a network and predictions with it depend on.
NETWORK_FIELDS = (
    *("task", "hand", "seed", "optim.ema_decay"),
    *_fields("model", *_MODEL, "hierarchy"),
)
RUN_FIELDS = (
    *NETWORK_FIELDS,
    *("init_from", "batch_size", "epochs", "checkpoint_every_epochs", "log_every_steps"),
    *_fields("augment", *_AUGMENT),
    *_fields("appearance", *_APPEARANCE),
    *_fields("data.source", "folder", "prepared", "synthetic_train", "synthetic_test"),
    *_fields("data.source", "recipe", "seed"),
    "data.mix",
    *_fields("data.loader", "threads", "workers", "skip_unreadable"),
    *_fields("optim", "learning_rate", "lr_decay_epochs", "lr_decay_factor", "warmup_epochs"),
    *_fields("optim", "clip_norm", "accumulate_steps", "skip_nonfinite"),
    *_fields("eval", "batch_size", "every_epochs", "save_predictions", "checkpoint"),
)
_TASK_FIELDS = {
    "mesh": _fields("loss", "reduction", "consistency_start_epoch"),
    "landmarks": _fields("loss", "heatmap_sigma_cells"),
}
# Sections whose fields become the arguments of a function, which takes no others.
_ARGUMENTS = ("model", "augment", "appearance", "data.source", "data.loader")
_LEAST = {"log_every_steps": 1} | dict.fromkeys(
    (
        *("seed", "data.source.seed", "data.source.synthetic_train", "data.source.synthetic_test"),
        *_fields("data.loader", "threads", "workers"),
    ),
    0,
)
_MOST = 2**63 - 1  # JAX's largest seed.
_INTEGERS = ("model.blocks", "model.channels")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested dictionary by their dotted names."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def check_names(source: str, config: Config, names: Sequence[str]) -> None:
    """Raises UserError if a field of `names` is missing, or in one of their sections is another.

    `source` says in the message where the config is from.
    """
    found = flatten(config.to_dict())
    sections = tuple(f"{s}." for s in _ARGUMENTS if any(n.startswith(f"{s}.") for n in names))
    faults = {
        "lacks": [name for name in names if name not in found],
        "has the unknown": [n for n in found if n.startswith(sections) and n not in names],
    }
    if any(faults.values()):
        text = " and ".join(f"{what} {', '.join(each)}" for what, each in faults.items() if each)
        raise UserError(
            f"{source} {text}: it was written for another version of this program; use that "
            "version, or take these fields from configs/resnet18.py of this one"
        )


def read_config(config: Config) -> Config:
    """The config of a run, checked, with a leading ~ of its paths replaced by the home folder.

    Raises:
        UserError: naming a field that is missing, unknown or has a value that no run can have.
    """
    check_names("the config", config, (*RUN_FIELDS, *_TASK_FIELDS.get(config.get("task"), ())))
    flat = flatten(config.to_dict())
    for name, least in _LEAST.items():
        if not (isinstance(flat[name], int) and least <= flat[name] <= _MOST):
            raise UserError(f"{name}={flat[name]} must be a whole number of at least {least}")
    for name in _INTEGERS:
        if not all(isinstance(entry, int) for entry in flat[name]):
            raise UserError(f"{name}={flat[name]} must hold whole numbers")
    for name, value in flat.items():
        entries = value if isinstance(value, tuple | list) else (value,)
        if "epoch" in name and not all(map(_is_finite, entries)):
            raise UserError(f"{name}={value} must be finite: it is a number of epochs")
    # Before a run's config is saved.
    AugmentConfig(1, **config.augment, appearance=AppearanceConfig(**config.appearance))
    paths = {
        name: str(user_path(value))
        for name, value in flat.items()
        if isinstance(value, str) and value.startswith("~")
    }
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(paths)
    return config


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
