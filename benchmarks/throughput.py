"""Images per second of the network alone, over batch sizes.

python -m benchmarks.throughput [configs/resnet34.py]
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.measure import interleaved, record, table
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.inference import predict

BATCHES = {"cpu": (1, 2, 4, 8, 16, 32), "gpu": (1, 4, 16, 64, 256, 1024)}


class InUse(NamedTuple):
    """An untrained network as inference runs it."""

    graphdef: Any
    params: Any
    stats: Any
    image_size: int


def load_network(name: str) -> InUse:
    """What a config describes; the one place where benchmarks say what inference runs."""
    config = load_config(name)
    network = create_network(config, load_hand(config))
    return InUse(network.eval_graphdef, network.params, network.stats, network.image_size)


def main(
    name: str = "configs/resnet18.py", *, batches: Sequence[int] | None = None, rounds: int = 10
) -> None:
    batches = batches or BATCHES[jax.default_backend()]
    network = load_network(name)
    rng, side = np.random.default_rng(0), network.image_size
    run = jax.jit(functools.partial(predict, network.graphdef))
    functions = {}
    for n in batches:
        images = jax.device_put(rng.uniform(-1, 1, (n, side, side, 3)).astype(np.float32))
        functions[f"batch_{n}"] = functools.partial(run, network.params, network.stats, images)
    timings = interleaved(functions, rounds)
    ms = {n: timing.median_ms for n, timing in zip(batches, timings.values(), strict=True)}
    images_per_s = {n: 1000 * n / ms[n] for n in batches}
    print(table(["batch", "ms", "images/s"], [[str(n), ms[n], images_per_s[n]] for n in batches]))
    rates = {str(n): round(rate, 1) for n, rate in images_per_s.items()}
    record("throughput", timings, config=name, images_per_s=rates)


if __name__ == "__main__":
    main(*sys.argv[1:])
