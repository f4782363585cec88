"""The peers' weights, drawn by the rule that stands beside their numbers, and put into ours."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from m3dhmr_jax.convert.names import Rules, arranged, their_name


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


def fill(module: nnx.Module, tensors: dict[str, np.ndarray], rules: Rules) -> nnx.Module:
    """An abstract module with the peer's tensors, each used; what has no name there stays empty."""
    graphdef, state = nnx.split(module)
    filled, used = [], set()
    for path, leaf in nnx.to_flat_state(state):
        ours = "/".join(map(str, path))
        theirs = their_name(ours, rules)
        if theirs in tensors:
            used.add(theirs)
            value = arranged(tensors[theirs], ours, leaf.shape)
            assert value.shape == leaf.shape, theirs
            leaf = leaf.replace(jnp.asarray(value))
        filled.append((path, leaf))
    assert used == tensors.keys()
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def run(function: Callable[..., Any], module: Any, *arrays: np.ndarray) -> Any:
    """What `function` makes of a module, or a tuple of them, and arrays; compiled."""
    graphdef, state = nnx.split(module)
    return jax.jit(lambda state, *x: function(nnx.merge(graphdef, state), *x))(state, *arrays)


def assert_matches(got: Any, want: np.ndarray, name: str) -> None:
    """Within 1e-4 of the array's largest magnitude."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max(), err_msg=name)


def load_outputs(path: Path) -> dict[str, np.ndarray]:
    """A peer's arrays; maps with channels last."""
    with np.load(path, allow_pickle=False) as file:
        return {k: x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for k, x in file.items()}
