"""The config of a run, kept beside its checkpoints, so that they can be used without it."""

import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from m3dhmr_jax.checkpoints.weights import load_weights
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.types import Config

NAME = "config.json"


def save_config(workdir: Path, config: Config) -> None:
    """Writes the config as JSON; all or nothing.

    Raises:
        ValueError: if another process does not find it there, or was started with another config.
    """
    text, file = config_text(config) + "\n", workdir / NAME
    if processes.is_primary():
        workdir.mkdir(parents=True, exist_ok=True)
        partial = workdir / (NAME + ".partial")
        partial.write_text(text)
        partial.replace(file)
    processes.barrier(f"{NAME} is written")
    if not file.is_file() or file.read_text() != text:
        raise ValueError(
            f"process {jax.process_index()} does not find its own config in {file.absolute()}, "
            "where the first one wrote it: start all processes with the same flags, and with a "
            "--workdir that their hosts share"
        )


def config_text(config: Config) -> str:
    """The config as JSON, also for the metadata of a weights file, under "config"."""
    return config.to_json(indent=2)


def load_config(path: Path) -> Config:
    """The config of a run's workdir or of a weights file.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if it holds no config.
    """
    if path.is_file():
        text = load_weights(path).metadata.get("config")
        if text is None:
            raise ValueError(
                f"{path}: its metadata holds no config, so its network is not known; name it with "
                f"main.py --config=... --mode=predict --config.eval.checkpoint={path}"
            )
        return _parse(path, text)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: neither the workdir of a run nor a weights file")
    file = path / NAME
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; {path} is not the workdir of a run, or one of an earlier "
            "version: name its config with main.py --config=... --mode=predict --workdir=..."
        )
    return _parse(file, file.read_text())


def _parse(path: Path, text: str) -> Config:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its config is no JSON ({error}); restore it") from error
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{path}: its config is not one of this program: it names no model")
    return ConfigDict(_tuples(content))


def _tuples(value: Any) -> Any:
    """JSON has lists only, where configs have tuples."""
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
