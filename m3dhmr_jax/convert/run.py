"""From public PyTorch weights to a weights file.

torchvision's ResNet-18 or ResNet-34 becomes the initial encoder of a training (`init_from`), the
same in both stacks; MobRecon becomes a complete network (`eval.checkpoint`), which needs the mesh
hierarchy that it was trained with.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from m3dhmr_jax.checkpoints.weights import check_weights_path, parts_of, save_weights
from m3dhmr_jax.convert import torch_file
from m3dhmr_jax.convert.architectures import Architecture, recognise
from m3dhmr_jax.convert.conversion import Conversion, convert
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, build_hierarchy, hierarchy_id
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.runtime.files import expand_home

MAX_NAMES_SHOWN = 4  # Per kind in the report; the others are counted.


@expand_home
def convert_file(
    path: Path, out: Path, hierarchy_path: Path | None = None, prefix: str = ""
) -> list[str]:
    """Writes the weights file `out`; returns the report of what was used and what was not.

    Only tensors whose names start with `prefix` are considered.

    Raises:
        UserError: if a file is missing or corrupted, contains more than tensors, or is of another
            network, or if `out` exists.
    """
    check_weights_path(out)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = torch_file.read(path)
        architecture = recognise([name for name in content.arrays if name.startswith(prefix)])
        hierarchy = _hierarchy(architecture, hierarchy_path)
        params, stats = abstract_network(architecture, hierarchy)
        conversion = convert(content.arrays, architecture, params, stats)
        _check_fit(architecture, conversion)
    except UserError as error:
        text = str(error)
        raise UserError(
            f"{text if str(path) in text else f'{path}: {text}'}; nothing was written"
        ) from error
    metadata = {
        "from": path.name,
        "from_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "network": architecture.title,
    }
    if architecture.complete:
        metadata["hierarchy"] = hierarchy_id(hierarchy)
    save_weights(out, conversion.params, conversion.stats, metadata)
    return [f"{path}: {architecture.title}", *report(conversion, content.others), f"Wrote {out}"]


def _hierarchy(architecture: Architecture, path: Path | None) -> MeshHierarchy:
    if path:
        return load_hierarchy(path)
    if architecture.complete:
        raise UserError(
            f"{architecture.title} fits only the mesh hierarchy that it was trained with: add it "
            "with --hierarchy (m3dhmr_jax/mesh/hierarchy_file.py describes the file)"
        )
    return build_hierarchy(load_builtin())


def abstract_network(architecture: Architecture, hierarchy: MeshHierarchy) -> tuple[Any, Any]:
    """Shapes and dtypes of our network's parameters and statistics."""
    config = ModelConfig(**architecture.model)
    model = nnx.eval_shape(lambda: M3DHMR(config, hierarchy, rngs=nnx.Rngs(0)))
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def _check_fit(architecture: Architecture, conversion: Conversion) -> None:
    """Raises UserError if a complete network lacks tensors, or most of an encoder does not fit."""
    mismatches = len(conversion.missing) + len(conversion.wrong_shape)
    if (architecture.complete and mismatches) or mismatches > len(conversion.used):
        lines = "; ".join(_mismatches(conversion))
        raise UserError(f"it looks like {architecture.title}, but has other sizes: {lines}")


def report(conversion: Conversion, others: dict[str, str]) -> Iterator[str]:
    """Lines on the tensors used and ignored, and on those of the network not in the file."""
    ours = len(conversion.params) + len(conversion.stats)
    yield f"used: {len(conversion.used)} tensors, for {ours} of the network's"
    reasons = defaultdict(list)
    for name, why in conversion.unused.items():
        reasons[why].append(name)
    for why, names in reasons.items():
        yield f"ignored: {len(names)}, {why}: {_few(names)}"
    if others:
        values = [f"{name}={value}" for name, value in others.items()]
        yield f"ignored: {len(others)}, not tensors: {_few(values)}"
    yield from _mismatches(conversion)
    if conversion.initialised:
        modules = parts_of(conversion.initialised, [*conversion.params, *conversion.stats])
        yield (
            f"random: {len(conversion.initialised)} of the network's, which such files do not "
            f"contain: {', '.join(modules)}"
        )


def _mismatches(conversion: Conversion) -> Iterator[str]:
    if conversion.missing:
        yield f"missing: {len(conversion.missing)}: {_few(conversion.missing)}"
    if conversion.wrong_shape:
        shapes = [
            f"{w.theirs} {w.their_shape} for {w.ours} {w.our_shape}" for w in conversion.wrong_shape
        ]
        yield f"wrong shape: {len(shapes)}: {_few(shapes)}"


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + more
