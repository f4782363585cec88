"""Images per second of the network alone, over batch sizes.

    python -m benchmarks.throughput [configs/resnet34.py]

`plain` is the network as it is trained, `network` as the predictor runs it: folded, for few hands.
The weights are untrained.
"""

import functools
import sys
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.measure import interleaved, record, table
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.inference import compiler_options, predict
from m3dhmr_jax.models.fast.folding import fold

BATCHES = {"cpu": (1, 2, 4, 8, 16, 32), "gpu": (1, 4, 16, 64, 256, 1024)}


def main(
    name: str = "configs/resnet18.py", *, batches: Sequence[int] | None = None, rounds: int = 10
) -> None:
    batches = batches or BATCHES[jax.default_backend()]
    config = load_config(name)
    network = create_network(config, load_hand(config))
    arrays, side = (network.params, network.stats), network.image_size
    graphdef, folded = fold(network.eval_graphdef, *arrays)
    plain = jax.jit(functools.partial(predict, network.eval_graphdef))
    fast = jax.jit(functools.partial(predict, graphdef), compiler_options=compiler_options())
    rng, functions = np.random.default_rng(0), {}
    for n in batches:
        images = jax.device_put(rng.uniform(-1, 1, (n, side, side, 3)).astype(np.float32))
        functions[f"plain_{n}"] = functools.partial(plain, *arrays, images)
        functions[f"network_{n}"] = functools.partial(fast, folded, {}, images)
    timings = interleaved(functions, rounds)
    rows, images_per_s = [], {}
    for n in batches:
        plain_ms, network_ms = (timings[f"{part}_{n}"].median_ms for part in ("plain", "network"))
        images_per_s[str(n)] = round(1000 * n / network_ms, 1)
        rows.append([str(n), plain_ms, network_ms, network_ms / plain_ms, 1000 * n / network_ms])
    print(table(["batch", "plain ms", "network ms", "network / plain", "images/s"], rows))
    record("throughput", timings, config=name, images_per_s=images_per_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
