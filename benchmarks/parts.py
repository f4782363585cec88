"""Where a network spends its time: each part alone, batch 1, on the output of the part before it.

    python -m benchmarks.parts [configs/resnet34.py]

The network is the plain one. Each part is a program of its own; the whole network is a single one,
in which the compiler may fuse across parts and the call overhead is paid once, so the sum of the
parts is an upper bound.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from benchmarks.measure import interleaved, record, table
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.inference import predict
from m3dhmr_jax.models.layers import sample_at
from m3dhmr_jax.models.network import M3DHMR
from m3dhmr_jax.models.resnet import StackedResNet
from m3dhmr_jax.models.spiral_conv import upsample
from m3dhmr_jax.types import Prediction

Call = Callable[..., Any]


def walk(model: M3DHMR, image: Float[Array, "b s s 3"], call: Call) -> Prediction:
    """The network part by part: `call(name, modules, function, *inputs)` computes one part.

    `function` takes the modules, which hold all its parameters, and the inputs.

    Raises:
        ValueError: if the network is not of two ResNet stacks.
    """
    backbone, decoder = model.backbone, model.decoder
    if not isinstance(backbone, StackedResNet):
        raise ValueError(
            f"a {type(backbone).__name__} has other parts: name a config with "
            "model.backbone='resnet'"
        )
    stem = call("stem", backbone.stem, lambda m, x: m(x), image)
    top = call("stack1", backbone.stack1, lambda m, x: m(x).top, stem)
    merged = call("merge", (backbone.remap, backbone.merge), _merge, stem, top)
    top, bottom = call("stack2", backbone.stack2, lambda m, x: m(x), merged)
    readers = backbone.landmark_map_conv, model.landmark_head
    landmarks_01 = call("landmarks", readers, lambda m, x: m[1](m[0](x)), top)
    lifting = backbone.encoding_conv, decoder.lifting_matrix
    x = call("sample_and_lift", lifting, _sample_and_lift, bottom, landmarks_01)
    for conv, level in zip(decoder.layers, decoder.hierarchy.levels[::-1], strict=True):

        def refine(conv, x, level=level):
            x = upsample(x, level.up_indices, level.up_weights)
            return nnx.relu(conv(x, level.spirals))

        x = call(f"level_{level.n_vertices}", conv, refine, x)
    rows = decoder.head_spirals.indices
    verts = call("head", decoder.head, lambda head, x: head(x, rows), x)
    return Prediction(verts, landmarks_01)


def _merge(modules: Any, stem: Array, top: Array) -> Array:
    remap, merge = modules
    return nnx.relu(merge(jnp.concatenate([stem, nnx.relu(remap(top))], axis=-1)))


def _sample_and_lift(modules: Any, bottom: Array, landmarks_01: Array) -> Array:
    encode, lift = modules
    return jnp.einsum("vn,bne->bve", lift[...], sample_at(encode(bottom), landmarks_01))


def programs(model: M3DHMR, image: Array) -> dict[str, Callable[[], Any]]:
    """Each part as a compiled program, bound to its parameters and inputs."""
    found = {}

    def call(name: str, modules: Any, function: Call, *inputs: Any) -> Any:
        graphdef, state = nnx.split(modules)
        program = jax.jit(lambda state, *x: function(nnx.merge(graphdef, state), *x))
        found[name] = lambda: program(state, *inputs)
        return found[name]()

    walk(model, image, call)
    return found


def main(name: str = "configs/resnet18.py", *, rounds: int = 100) -> None:
    config = load_config(name)
    network = create_network(config, load_hand(config))
    arrays, side = (network.params, network.stats), network.image_size
    model = nnx.merge(network.eval_graphdef, *arrays)
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, side, side, 3)), jnp.float32)
    whole = jax.jit(lambda params, stats: predict(network.eval_graphdef, params, stats, image))
    functions = programs(model, image) | {"network": lambda: whole(*arrays)}
    timings = interleaved(functions, rounds)
    parts_ms = {name: t.median_ms for name, t in timings.items() if name != "network"}
    together_ms = sum(parts_ms.values())
    rows = [[name, ms, 100 * ms / together_ms] for name, ms in parts_ms.items()]
    rows += [["all parts", together_ms, 100.0], ["network", timings["network"].median_ms, ""]]
    print(table(["part", "ms", "%"], rows))
    record("parts", timings, config=name, parts_together_ms=round(together_ms, 4))


if __name__ == "__main__":
    main(*sys.argv[1:])
