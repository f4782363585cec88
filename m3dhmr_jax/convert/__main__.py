"""Makes a weights file of public PyTorch weights: python -m m3dhmr_jax.convert FILE --out OUT.

torchvision's ResNet-18 or ResNet-34 becomes a start for training (--config.init_from=OUT), the
same in both stacks; MobRecon becomes a whole network (--config.eval.checkpoint=OUT), which needs
the mesh hierarchy that it was trained with.
"""

import argparse
import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from m3dhmr_jax.builders import hierarchy_id
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.convert import torch_file
from m3dhmr_jax.convert.architectures import Architecture, recognise
from m3dhmr_jax.convert.conversion import Conversion, convert
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, build_hierarchy
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from m3dhmr_jax.models.network import M3DHMR, ModelConfig

SHOWN = 4  # Names of each kind in the report; the rest is counted.


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m m3dhmr_jax.convert", description=__doc__)
    parser.add_argument("file", type=Path, help="a .pth, .pt or .safetensors file")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--hierarchy", type=Path, help="the .npz of mesh hierarchy, for MobRecon")
    parser.add_argument("--under", default="", help="take only tensors whose names start so")
    flags = parser.parse_args(arguments)
    try:
        for line in convert_file(flags.file, flags.out, flags.hierarchy, flags.under):
            print(line)
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


def convert_file(
    path: Path, out: Path, hierarchy_path: Path | None = None, under: str = ""
) -> list[str]:
    """Writes the weights file `out` and tells what became of everything in the file.

    The network is looked for among the tensors whose names start with `under`.

    Raises:
        OSError: if a file is not there or `out` cannot be written.
        ValueError: if a file is damaged or holds more than tensors, or is of another network.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"--out={out} must end in .safetensors, the format of weights files")
    content = torch_file.read(path)
    try:
        architecture = recognise([name for name in content.arrays if name.startswith(under)])
        hierarchy = _hierarchy(architecture, hierarchy_path)
        params, stats = abstract_network(architecture, hierarchy)
        conversion = convert(content.arrays, architecture, params, stats)
        _check_fit(architecture, conversion)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; nothing was written") from error
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
        raise ValueError(
            f"{architecture.title} fits only the mesh hierarchy that it was trained with: give it "
            "with --hierarchy (m3dhmr_jax/mesh/hierarchy_file.py says how the file is made)"
        )
    return build_hierarchy(load_builtin())


def abstract_network(architecture: Architecture, hierarchy: MeshHierarchy) -> tuple[Any, Any]:
    """Parameters and statistics of our network, as shapes and types."""
    config = ModelConfig(**architecture.model)
    model = nnx.eval_shape(lambda: M3DHMR(config, hierarchy, rngs=nnx.Rngs(0)))
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def _check_fit(architecture: Architecture, conversion: Conversion) -> None:
    """Raises ValueError if a whole network is incomplete, or if most of a part does not fit."""
    misfits = len(conversion.missing) + len(conversion.wrong_shape)
    if (architecture.complete and misfits) or misfits > len(conversion.used):
        lines = "; ".join(_misfits(conversion))
        raise ValueError(f"it looks like {architecture.title}, but has other sizes: {lines}")


def report(conversion: Conversion, others: dict[str, str]) -> Iterator[str]:
    """What became of everything in the file, and what of the network is not in it."""
    ours = len(conversion.params) + len(conversion.stats)
    yield f"used: {len(conversion.used)} tensors, which fill {ours} of the network's"
    reasons = defaultdict(list)
    for name, why in conversion.unused.items():
        reasons[why].append(name)
    for why, names in reasons.items():
        yield f"left: {len(names)}, {why}: {_few(names)}"
    if others:
        yield f"left: {len(others)}, no tensors: {_few([f'{k}={v}' for k, v in others.items()])}"
    yield from _misfits(conversion)
    if conversion.initialised:
        fresh, filled = conversion.initialised, [*conversion.params, *conversion.stats]
        parts = ", ".join(_whole_modules(fresh, filled))
        yield f"fresh: {len(fresh)} of the network's, which no such file has: {parts}"


def _whole_modules(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The largest modules that own some of `names` and none of `others`."""
    mixed = {up for name in others for up in _ups(name)}
    return list(dict.fromkeys(next(up for up in _ups(name) if up not in mixed) for name in names))


def _ups(name: str) -> list[str]:
    """All that contains `name`, from the outermost module to itself."""
    return [name[: slash.start()] for slash in re.finditer("/|$", name)]


def _misfits(conversion: Conversion) -> Iterator[str]:
    if conversion.missing:
        yield f"missing: {len(conversion.missing)}: {_few(conversion.missing)}"
    if conversion.wrong_shape:
        shapes = [
            f"{w.theirs} {w.their_shape} for {w.ours} {w.our_shape}" for w in conversion.wrong_shape
        ]
        yield f"wrong shape: {len(shapes)}: {_few(shapes)}"


def _few(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


if __name__ == "__main__":
    main()
