"""The config of a run, saved next to its checkpoints, so they can be used on their own."""

import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from m3dhmr_jax.checkpoints.identity import CONFIG_NAME
from m3dhmr_jax.checkpoints.weights import load_weights
from m3dhmr_jax.config_fields import NETWORK_FIELDS, check_names, flatten
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.runtime.files import user_path, write_atomic
from m3dhmr_jax.types import Config


def save_config(workdir: Path, config: Config) -> None:
    """Writes the config as JSON, atomically.

    Raises:
        UserError: if another process does not find it there, or was started with another config;
            if a file of this name is there that is not the config of a run.
    """
    text, file = config_text(config) + "\n", workdir / CONFIG_NAME
    if processes.is_primary():
        if file.exists():
            _content(file, file.read_text(encoding="utf-8"))
        with write_atomic(file) as partial:
            partial.write_text(text, encoding="utf-8")
    processes.barrier(f"{CONFIG_NAME} is written")
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        raise UserError(
            f"process {jax.process_index()} does not find its own config in {file.absolute()}, "
            "where process 0 wrote it: start all processes with the same flags, and with a "
            "--workdir that their hosts share"
        )


def config_text(config: Config) -> str:
    """The config as JSON."""
    return config.to_json(indent=2)


def network_text(config: Config) -> str:
    """What a network depends on, as JSON, for a weights file's metadata under "config"."""
    flat, nested = flatten(config.to_dict()), {}
    for name in NETWORK_FIELDS:
        *sections, last = name.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = flat[name]
    return json.dumps(nested)


def load_config(path: Path) -> Config:
    """The config of a run's workdir or of a weights file.

    Raises:
        UserError: if there is neither, it does not hold a config, or one of another version of
            this program, or there is no such hand model as it names.
    """
    path = user_path(path)
    if path.is_file():
        text = load_weights(path).metadata.get("config")
        if text is None:
            raise UserError(
                f"{path}: its metadata does not hold a config, so its network is not known; write "
                "the file again from its run with m3dhmr convert, which stores the config"
            )
        return _parse(path, text)
    if not path.is_dir():
        raise UserError(f"{path}: neither the workdir of a run nor a weights file")
    file = path / CONFIG_NAME
    if not file.is_file():
        raise UserError(f"{file}: no such file; {path} is not the workdir of a run")
    return _parse(file, file.read_text(encoding="utf-8"))


def _content(path: Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: its config is not JSON ({error}); restore the file") from error
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(f"{path}: its config is not one of this program: it has no model section")
    return content


def _parse(path: Path, text: str) -> Config:
    config = ConfigDict(_tuples(_content(path, text)))
    check_names(f"{path}: its config", config, NETWORK_FIELDS)
    hand = str(config.hand)
    if hand and not user_path(hand).is_file():
        raise UserError(
            f"{path}: its config has hand={hand}, and there is no such file here "
            f"({user_path(hand).absolute()}): start in the folder of the training, or write "
            "the complete path of your MANO_RIGHT.pkl into the config"
        )
    return config


def _tuples(value: Any) -> Any:
    """JSON has only lists where configs have tuples."""
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
