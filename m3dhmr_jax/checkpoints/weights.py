"""Weights files: the arrays of a network under their names, in the safetensors format.

A tensor's name is its path in the network's tree, after "params/" or "stats/" (BatchNorm's), such
as "params/backbone/stem/conv1/conv/kernel". The format holds numbers only, nothing executable.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import check_new, write_atomic

MAX_NAMES_SHOWN = 8  # Per kind in a report; the others are counted.
Arrays = dict[str, np.ndarray]


class Weights(NamedTuple):
    """The content of a file; names without "params/" and "stats/"."""

    params: Arrays
    stats: Arrays
    metadata: dict[str, str]


class LoadReport(NamedTuple):
    """Every name of a tree and of the arrays loaded into it, each in one field."""

    used: tuple[str, ...]
    # In the tree only; these leaves keep their values.
    missing: tuple[str, ...]
    # In the file only.
    unused: tuple[str, ...]
    # (name, shape in the file, shape in the tree).
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


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


def check_weights_path(path: Path) -> None:
    """Raises UserError if a weights file should not be written there."""
    if path.suffix != ".safetensors":
        raise UserError(f"--out {path} must end in .safetensors, the format of weights files")
    check_new(path)


def save_weights(
    path: Path, params: Any, stats: Any, metadata: Mapping[str, str], *, half: bool = False
) -> None:
    """Writes two pure trees and metadata, atomically.

    Args:
        half: store the parameters as float16. The statistics stay as they are: they are few, and
            variances can exceed the range of float16.

    Raises:
        UserError: if an array holds NaN or infinity, or, if `half`, exceeds the range of float16.
    """
    parts = {"params": flatten(params), "stats": flatten(stats)}
    if half:
        with np.errstate(over="ignore"):  # Infinity, which is found below.
            parts["params"] = {n: x.astype(np.float16) for n, x in parts["params"].items()}
    tensors = {f"{part}/{name}": x for part, each in parts.items() for name, x in each.items()}
    _check_finite(path, tensors)
    # safetensors writes the memory of an array and ignores its strides.
    contiguous = {name: np.asarray(x, order="C") for name, x in tensors.items()}
    with write_atomic(path) as partial:
        save_file(contiguous, partial, dict(metadata))


def load_weights(path: Path) -> Weights:
    """Reads a weights file; what is stored in half precision is returned as float32.

    Raises:
        UserError: if it is missing, truncated, not finite or of another format, or its tensors
            have other names.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            tensors = {name: _full(file.get_tensor(name)) for name in names}
            metadata = file.metadata() or {}
    except (SafetensorError, TypeError, AttributeError) as error:  # The latter two: its dtypes.
        raise UserError(
            f"{path}: not a complete safetensors file of numbers ({error}): it is truncated or of "
            "another format; copy it again, or convert a PyTorch file with m3dhmr convert"
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
        raise UserError(
            f"{path}: {len(foreign)} of its {len(tensors)} tensors do not have names of this "
            f"program ({_few(foreign)}): names start with params/ or stats/; convert files of "
            "other programs with m3dhmr convert"
        )
    _check_finite(path, tensors)
    return Weights(**parts, metadata=metadata)


def _full(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor


def load_matching(tree: Any, found: Mapping[str, np.ndarray]) -> tuple[Any, LoadReport]:
    """`tree` with each leaf replaced for which `found` has that name and shape, and a report.

    Leaves keep the tree's dtypes.
    """
    names, (leaves, structure) = names_of(tree), jax.tree.flatten(tree)
    same_name = {name: leaf.shape for name, leaf in zip(names, leaves, strict=True)}
    same_name = {name: shape for name, shape in same_name.items() if name in found}
    used = {name for name, shape in same_name.items() if found[name].shape == shape}
    loaded = [
        jax.numpy.asarray(found[name], leaf.dtype) if name in used else leaf
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, loaded), LoadReport(
        used=tuple(name for name in names if name in used),
        missing=tuple(name for name in names if name not in found),
        unused=tuple(name for name in found if name not in same_name),
        wrong_shape=tuple(
            (name, found[name].shape, shape)
            for name, shape in same_name.items()
            if name not in used
        ),
    )


def summarize(report: LoadReport) -> list[str]:
    """A line for each kind of mismatch: how many tensors, and which ones or which parts."""
    shapes = [f"{name} {offered} not {own}" for name, offered, own in report.wrong_shape]
    common = [*report.used, *(name for name, _, _ in report.wrong_shape)]
    missing = parts_of(report.missing, [*common, *report.unused])
    unused = parts_of(report.unused, [*common, *report.missing])
    kinds = {
        "missing in the file": (report.missing, missing),
        "unused": (report.unused, unused),
        "of another shape": (report.wrong_shape, shapes),
    }
    return [
        f"{len(names)} {kind}: {_few(shown)}" for kind, (names, shown) in kinds.items() if names
    ]


def parts_of(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The shortest path prefixes that cover all of `names` and none of `others`."""
    shared = {path for name in others for path in _paths_to(name)}
    return list(
        dict.fromkeys(next((p for p in _paths_to(name) if p not in shared), name) for name in names)
    )


def _paths_to(name: str) -> list[str]:
    steps = name.split("/")
    return ["/".join(steps[:depth]) for depth in range(1, len(steps) + 1)]


def _few(names: list[str]) -> str:
    more = len(names) - MAX_NAMES_SHOWN
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _check_finite(path: Path, tensors: Arrays) -> None:
    bad = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if bad:
        raise UserError(
            f"{path}: {len(bad)} of {len(tensors)} tensors hold NaN or infinity ({_few(bad)}): "
            "every prediction would be NaN; use an earlier file"
        )
