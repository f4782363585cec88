"""The systems of the paper's tables 1 to 4 that belong to this family: sizes next to scores.

    python -m benchmarks.systems

Prints the table of docs/systems.md in Markdown, then one line of JSON. Multiply-adds are those of
one image, counted over the traced program: every multiplication of a convolution (its padding
included), of a matrix product, and of floats element by element (normalisation, up-sampling and
attention over kernels among them), before any optimisation by the compiler.
"""

import functools
import importlib
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.inference import predict
from m3dhmr_jax.types import Config


class System(NamedTuple):
    """A row of a table of the paper."""

    table: int
    name: str
    config: str
    paper: tuple[float, float, float, float]  # PA-MPJPE and PA-MPVPE in mm, F@5, F@15.


ABLATION = "configs/ablation.py:"
SYSTEMS = (
    System(1, "Baseline", ABLATION + "decoder=spiral,roi=false", (6.8, 7.0, 0.720, 0.967)),
    System(1, "w/o DSC layer", ABLATION + "decoder=spiral", (6.8, 6.9, 0.723, 0.977)),
    System(1, "w/o ROI layer", ABLATION + "roi=false", (6.7, 6.8, 0.728, 0.978)),
    System(1, "M3DHMR", "configs/resnet18.py", (6.6, 6.7, 0.734, 0.978)),
    System(2, "SpiralConv++", ABLATION + "decoder=spiral", (6.8, 6.9, 0.723, 0.976)),
    System(2, "Depth-separable", ABLATION + "decoder=dsconv", (6.8, 6.9, 0.724, 0.977)),
    System(2, "Dynamic, K=8", "configs/resnet18.py", (6.6, 6.7, 0.734, 0.978)),
    System(3, "K=2", ABLATION + "kernels=2", (6.7, 6.9, 0.728, 0.976)),
    System(3, "K=4", ABLATION + "kernels=4", (6.7, 6.8, 0.730, 0.976)),
    System(3, "K=8", ABLATION + "kernels=8", (6.6, 6.7, 0.734, 0.978)),
    System(3, "K=16", ABLATION + "kernels=16", (6.7, 6.8, 0.731, 0.977)),
    System(
        4,
        "MobRecon, DenseStack",
        "configs/mobrecon.py:backbone=densestack",
        (6.9, 7.2, 0.694, 0.979),
    ),
    System(
        4, "MobRecon, ResNet18", "configs/mobrecon.py:backbone=resnet18", (6.7, 6.8, 0.727, 0.979)
    ),
    System(
        4, "MobRecon, ResNet34", "configs/mobrecon.py:backbone=resnet34", (6.6, 6.7, 0.730, 0.979)
    ),
    System(4, "M3DHMR, ResNet18", "configs/resnet18.py", (6.6, 6.7, 0.734, 0.978)),
    System(4, "M3DHMR, ResNet34", "configs/resnet34.py", (6.5, 6.6, 0.739, 0.980)),
)
HEADER = """| table | system | `--config=` | parameters, M | multiply-adds, G \
| PA-MPJPE mm, paper | PA-MPVPE mm, paper | F@5, paper | F@15, paper \
| PA-MPJPE mm | PA-MPVPE mm | F@5 | F@15 |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


class Size(NamedTuple):
    parameters: int
    multiply_adds: int


def load_config(name: str) -> Config:
    """The config that `--config=name` loads; the working directory must be the repository's."""
    path, *variant = name.split(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(*variant)


def size_of(config: Config) -> Size:
    """Counts a network without initialising it."""
    network = create_network(config, load_hand(config), abstract=True)
    image = jax.ShapeDtypeStruct((1, network.image_size, network.image_size, 3), jnp.float32)
    forward = functools.partial(predict, network.eval_graphdef)
    program = jax.make_jaxpr(forward)(network.params, network.stats, image)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network.params))
    return Size(parameters, multiply_adds(program.jaxpr))


def multiply_adds(jaxpr: Any) -> int:
    """Multiplications of floats in a program and in all that it calls."""
    return sum(
        _own(step) + sum(multiply_adds(inner) for inner in _called(step)) for step in jaxpr.eqns
    )


def _own(step: Any) -> int:
    out = step.outvars[0].aval
    match step.primitive.name:
        case "conv_general_dilated":
            kernel = step.invars[1].aval
            out_features = kernel.shape[step.params["dimension_numbers"].rhs_spec[0]]
            return out.size * kernel.size // out_features
        case "dot_general":
            (summed, _), _ = step.params["dimension_numbers"]
            return out.size * math.prod(step.invars[0].aval.shape[axis] for axis in summed)
        case "mul" if jnp.issubdtype(out.dtype, jnp.floating):
            return out.size
    return 0


def _called(step: Any) -> Iterator[Any]:
    for value in step.params.values():
        inner = getattr(value, "jaxpr", value)  # Closed or open.
        if hasattr(inner, "eqns"):
            yield inner


def main() -> None:
    sizes = {system.config: size_of(load_config(system.config)) for system in SYSTEMS}
    print(HEADER)
    for system in SYSTEMS:
        size, (pj, pv, f_5, f_15) = sizes[system.config], system.paper
        print(
            f"| {system.table} | {system.name} | `{system.config}` | {size.parameters / 1e6:.2f} "
            f"| {size.multiply_adds / 1e9:.2f} | {pj:.1f} | {pv:.1f} | {f_5:.3f} | {f_15:.3f} "
            "| | | | |"
        )
    print(json.dumps([system._asdict() | sizes[system.config]._asdict() for system in SYSTEMS]))


if __name__ == "__main__":
    main()
