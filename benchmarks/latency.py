"""Latency of one hand: the network alone, and from an image to a mesh in camera space.

    python -m benchmarks.latency [--config=configs/resnet34.py] [--compute_dtype=bfloat16]

One line per config. `plain` is the network as it is trained, `jax.jit` of the unfolded module in
evaluation mode; `network` is what the predictor runs. All configs are timed in turn in one
process, next to the plain M3DHMR-ResNet18. The image has 640 x 480 px with one box and K; the
pipeline looks at the box twice, first for the direction of the hand. Its column stays empty where
OpenCV is not installed.
"""

import argparse
import functools
import importlib.util
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.measure import interleaved, record, table
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import compiler_options, predict
from m3dhmr_jax.models.fast.folding import fold

REFERENCE = "configs/resnet18.py"
CONFIGS = (REFERENCE, "configs/mobrecon.py:backbone=densestack")
HEADS = [
    "config",
    "plain ms",
    "network ms",
    "pipeline ms",
    "network / plain",
    "network / plain ResNet18",
    "pipeline / network",
]
K = np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1]], np.float32)


def calls(name: str, compute_dtype: str) -> dict[str, Callable[[], object]]:
    """Plain network, network, and pipeline of a config, untrained, for one hand each."""
    hand, config = load_builtin(), load_config(name)
    config.model.compute_dtype = compute_dtype
    network = create_network(config, hand)
    side, (params, stats) = network.image_size, (network.params, network.stats)
    image = jax.random.normal(jax.random.key(0), (1, side, side, 3))
    graphdef, folded = fold(network.eval_graphdef, params, stats)
    plain = jax.jit(functools.partial(predict, network.eval_graphdef))
    fast = jax.jit(functools.partial(predict, graphdef), compiler_options=compiler_options())
    parts: dict[str, Callable[[], object]] = {
        "network_plain": functools.partial(plain, params, stats, image),
        "network": functools.partial(fast, folded, {}, image),
    }
    if importlib.util.find_spec("cv2"):
        from m3dhmr_jax.predict.jax_networks import JaxNetwork
        from m3dhmr_jax.predict.methods import NetworkMethod
        from m3dhmr_jax.predict.predictor import HandMeshPredictor

        predictor = HandMeshPredictor(NetworkMethod(JaxNetwork(network, hand, params, stats)))
        image_u8 = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        boxes_px = [[200, 150, 170, 180]]
        parts["pipeline"] = functools.partial(predictor, image_u8, boxes=boxes_px, K=K)
    return parts


def main(
    configs: tuple[str, ...] = CONFIGS, rounds: int = 40, compute_dtype: str = "float32"
) -> None:
    names = dict.fromkeys((REFERENCE, *configs))
    functions = {
        (name, part): call for name in names for part, call in calls(name, compute_dtype).items()
    }
    keys = {f"{name} {part}": (name, part) for name, part in functions}
    timings = interleaved({key: functions[pair] for key, pair in keys.items()}, rounds)
    of_config = {
        name: {keys[key][1]: t for key, t in timings.items() if keys[key][0] == name}
        for name in names
    }
    reference_ms = of_config[REFERENCE]["network_plain"].median_ms
    rows = []
    for name in configs:
        medians_ms = {part: timing.median_ms for part, timing in of_config[name].items()}
        plain, network = medians_ms["network_plain"], medians_ms["network"]
        pipeline = medians_ms.get("pipeline")
        ratios = {
            "network_to_plain": network / plain,
            "network_to_plain_resnet18": network / reference_ms,
            "pipeline_to_network": pipeline and pipeline / network,
        }
        rows.append([name, plain, network, pipeline, *ratios.values()])
        record(
            "latency",
            of_config[name],
            config=name,
            compute_dtype=compute_dtype,
            ratios={key: ratio and round(ratio, 3) for key, ratio in ratios.items()},
        )
    print(table(HEADS, rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", action="append", help="a config of this repository, or several")
    parser.add_argument("--rounds", type=int, default=40, help="measured rounds")
    parser.add_argument("--compute_dtype", default="float32", help="config.model.compute_dtype")
    args = parser.parse_args()
    main(tuple(args.config or CONFIGS), args.rounds, args.compute_dtype)
