"""The peers' weights, drawn by the rule that stands beside their numbers."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def load_rule(path: Path) -> dict[str, Any]:
    """The description of a peer's tensors: densestack_params.json or resnet_params.json."""
    return json.loads(path.read_text())


def draw(rule: dict[str, Any], entries: str) -> dict[str, np.ndarray]:
    """The tensors of one list of the file by their PyTorch names, in PyTorch's layout."""
    prefix = rule["rule"]["seed_prefix"]
    drawn = [e for e in rule[entries] if e["branch"] != "skip"]
    return {e["name"]: _tensor(e, prefix) for e in drawn}


def _tensor(entry: dict[str, Any], prefix: str) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32((prefix + entry["name"]).encode()))
    branch, shape = entry["branch"], entry["shape"]
    if branch == "uv_out":
        values = entry["s"] * (1 + 2 * rng.normal(0, 1, shape))
    else:
        values = rng.normal(0, entry["s"], shape)
        values = {"bn_weight": 1 + values, "bn_var": np.exp(values)}.get(branch, values)
    tensor = values.astype(np.float32)
    np.testing.assert_allclose(tensor.ravel()[0], entry["first"], rtol=1e-6, err_msg=entry["name"])
    total = tensor.sum(dtype=np.float64)
    np.testing.assert_allclose(total, entry["sum"], atol=1e-3, err_msg=entry["name"])
    return tensor
