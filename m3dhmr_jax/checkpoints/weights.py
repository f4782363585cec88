"""Weights files: the arrays of a network under their names, in the safetensors format.

A tensor's name is its path in the network's tree, after "params/" or "stats/" (BatchNorm's), such
as "params/backbone/stem/conv1/conv/kernel". The format holds numbers and nothing that could run.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

SHOWN = 8  # Names of each kind in a report; the rest is counted.
Arrays = dict[str, np.ndarray]


class Weights(NamedTuple):
    """The content of a file; names are without "params/" and "stats/"."""

    params: Arrays
    stats: Arrays
    metadata: dict[str, str]


class LoadReport(NamedTuple):
    """What became of every name of a tree and of what was offered to it; no name is twice here."""

    used: tuple[str, ...]
    missing: tuple[str, ...]  # In the tree only; left as they were.
    unused: tuple[str, ...]  # Offered only.
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]  # (name, offered, tree).

    @property
    def fits_exactly(self) -> bool:
        return not (self.missing or self.unused or self.wrong_shape)


def names_of(tree: Any) -> list[str]:
    """The paths of a tree's leaves, joined by slashes, in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def flatten(tree: Any) -> Arrays:
    """The leaves of a tree as host arrays under their names."""
    leaves = jax.device_get(jax.tree.leaves(tree))
    return dict(zip(names_of(tree), map(np.asarray, leaves), strict=True))


def save_weights(path: Path, params: Any, stats: Any, metadata: Mapping[str, str]) -> None:
    """Writes two pure trees and a description; all or nothing.

    Raises:
        ValueError: if an array holds NaN or infinity.
    """
    parts = {"params": flatten(params), "stats": flatten(stats)}
    tensors = {f"{part}/{name}": x for part, each in parts.items() for name, x in each.items()}
    _check_finite(path, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # The library writes memory as it lies there, whatever the strides.
    save_file(
        {name: np.asarray(x, order="C") for name, x in tensors.items()}, partial, dict(metadata)
    )
    os.replace(partial, path)


def load_weights(path: Path) -> Weights:
    """Reads a weights file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is of another kind, cut off or not finite, or its names are not ours.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = file.metadata() or {}
    except (SafetensorError, TypeError, AttributeError) as error:  # The latter: number types.
        raise ValueError(
            f"{path}: not a whole safetensors file of numbers ({error}): it is cut off or of "
            "another kind; copy it again, or convert a PyTorch file with python -m "
            "m3dhmr_jax.convert"
        ) from error
    parts: dict[str, Arrays] = {"params": {}, "stats": {}}
    foreign = []
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part in parts and rest:
            parts[part][rest] = tensor
        else:
            foreign.append(name)
    if foreign or not tensors:
        raise ValueError(
            f"{path}: {len(foreign)} of its {len(tensors)} tensors are named as no network here "
            f"names them ({_few(foreign)}): names start with params/ or stats/; convert files of "
            "other programs with python -m m3dhmr_jax.convert"
        )
    _check_finite(path, tensors)
    return Weights(**parts, metadata=metadata)


def load_matching(tree: Any, found: Mapping[str, np.ndarray]) -> tuple[Any, LoadReport]:
    """`tree` with every leaf replaced that `found` has by name and shape, and a full account.

    Leaves keep the tree's number types.
    """
    names, (leaves, structure) = names_of(tree), jax.tree.flatten(tree)
    same_name = {name: leaf.shape for name, leaf in zip(names, leaves, strict=True)}
    same_name = {name: shape for name, shape in same_name.items() if name in found}
    used = {name for name, shape in same_name.items() if found[name].shape == shape}
    adopted = [
        jax.numpy.asarray(found[name], leaf.dtype) if name in used else leaf
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, adopted), LoadReport(
        used=tuple(name for name in names if name in used),
        missing=tuple(name for name in names if name not in found),
        unused=tuple(name for name in found if name not in same_name),
        wrong_shape=tuple(
            (name, found[name].shape, shape)
            for name, shape in same_name.items()
            if name not in used
        ),
    )


def summarize(adopted: LoadReport) -> list[str]:
    """What did not fit, a line for each kind there is: how many, and which parts or tensors."""
    shapes = [f"{name} {offered} not {own}" for name, offered, own in adopted.wrong_shape]
    common = [*adopted.used, *(name for name, _, _ in adopted.wrong_shape)]
    missing = parts_of(adopted.missing, [*common, *adopted.unused])
    unused = parts_of(adopted.unused, [*common, *adopted.missing])
    kinds = {
        "missing there": (adopted.missing, missing),
        "unused": (adopted.unused, unused),
        "of another shape": (adopted.wrong_shape, shapes),
    }
    return [f"{len(names)} {kind}: {_few(told)}" for kind, (names, told) in kinds.items() if names]


def parts_of(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The shortest paths that lead to all of `names` and to none of the others."""
    shared = {path for name in others for path in _paths_to(name)}
    return list(
        dict.fromkeys(next((p for p in _paths_to(name) if p not in shared), name) for name in names)
    )


def _paths_to(name: str) -> list[str]:
    steps = name.split("/")
    return ["/".join(steps[:depth]) for depth in range(1, len(steps) + 1)]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _check_finite(path: Path, tensors: Arrays) -> None:
    bad = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} of {len(tensors)} tensors hold NaN or infinity ({_few(bad)}): "
            "a network with them answers nothing but NaN; use an earlier file"
        )
