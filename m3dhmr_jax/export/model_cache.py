"""ONNX models in the user's cache folder, so that only the first process has to write them.

An entry is KEY.onnx, and KEY.json with facts about the model and the SHA-256 of both.
What is damaged, or of another program, is written again.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import platformdirs

from m3dhmr_jax.runtime.files import write_atomic


class CachedModel(NamedTuple):
    """An ONNX model, and facts about it."""

    content: bytes
    facts: Mapping[str, str]


def cache_folder() -> Path:
    """Where models are kept: next to JAX's compiled programs. It may be deleted at any time."""
    return Path(platformdirs.user_cache_dir("m3dhmr_jax", appauthor=False)) / "onnx"


def cache_key(*parts: bytes) -> str:
    """A key for what a model is made from: `parts`, and the code that writes it."""
    total = hashlib.sha256()
    writer = sorted(Path(__file__).parent.glob("onnx_*.py"))
    for part in (*parts, *(file.read_bytes() for file in writer)):
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def read_cached(key: str) -> CachedModel | None:
    """The entry; None if there is none that is intact."""
    path = cache_folder() / key
    try:
        content = path.with_suffix(".onnx").read_bytes()
        described = json.loads(path.with_suffix(".json").read_bytes())
        model, sha256 = CachedModel(content, described["facts"]), described["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return model if _sha256(model) == sha256 else None


def write_cached(key: str, model: CachedModel) -> None:
    """Writes the entry. A folder that cannot be written to costs time only: a warning names it."""
    path = cache_folder() / key
    described = json.dumps({"sha256": _sha256(model), "facts": model.facts})
    try:
        with write_atomic(path.with_suffix(".onnx")) as partial:
            partial.write_bytes(model.content)
        with write_atomic(path.with_suffix(".json")) as partial:
            partial.write_text(described)
    except OSError as error:
        warnings.warn(
            f"the network is written anew by every process, as it cannot be kept: {error}",
            stacklevel=2,
        )


def _sha256(model: CachedModel) -> str:
    total = hashlib.sha256(json.dumps(model.facts, sort_keys=True).encode())
    total.update(model.content)
    return total.hexdigest()
