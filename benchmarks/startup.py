"""Seconds from the start of a process to its first hand, and what the compilation cache saves.

    python -m benchmarks.startup [configs/resnet34.py]

Every start is a process of its own: without a cache, with an empty one that it fills, and with a
full one. "network" is the hand's tables, weights read from a file (untrained ones) and folding;
hands are those of one crop, in front of the camera.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Timing, record, table, timing
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.weights import save_weights

STAGES = ("imports", "network", "first_hand", "next_hand")
PROGRAM = """
import json, sys, time
from pathlib import Path
import jax
import numpy as np
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.restore import restore_eval_state
from m3dhmr_jax.inference import make_crop_step
from m3dhmr_jax.models.fast.folding import fold

ends = [time.time()]
config = load_config(sys.argv[1])
hand = load_hand(config)
network = create_network(config, hand, abstract=True)
state = restore_eval_state(network, Path(), sys.argv[2])
graphdef, folded = jax.block_until_ready(fold(network.eval_graphdef, state.params, state.stats))
side = network.image_size
step = make_crop_step(graphdef, hand.joint_regressor, side)
crop = np.zeros((1, side, side, 3), np.uint8)
cameras = np.eye(2, 3, dtype=np.float32)[None], np.eye(3, dtype=np.float32)[None]
ends.append(time.time())
for _ in range(2):
    jax.block_until_ready(step(folded, {}, crop, *cameras))
    ends.append(time.time())
print(json.dumps(ends))
"""


def start_ms(name: str, weights: Path, cache: str) -> dict[str, float]:
    """How long the stages of a fresh process take; `cache` is a folder, or "" for none."""
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "true" if cache else "false",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", PROGRAM, name, str(weights)]
    before = time.time()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    ends = [before, *json.loads(done.stdout.splitlines()[-1])]
    spans = (1000 * (end - start) for start, end in itertools.pairwise(ends))
    return dict(zip(STAGES, spans, strict=True))


def main(name: str = "configs/resnet18.py", *, rounds: int = 3) -> None:
    times: dict[str, list[dict[str, float]]] = {"no_cache": [], "empty_cache": [], "full_cache": []}
    config = load_config(name)
    network = create_network(config, load_hand(config))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors")
        save_weights(weights, network.params, network.stats, {})
        for number in range(rounds):
            cache = str(Path(folder, str(number)))
            times["no_cache"].append(start_ms(name, weights, ""))
            times["empty_cache"].append(start_ms(name, weights, cache))
            times["full_cache"].append(start_ms(name, weights, cache))
    timings: dict[str, Timing] = {}
    rows = []
    for case, starts in times.items():
        stages = {stage: timing([start[stage] for start in starts]) for stage in STAGES}
        timings |= {f"{case}_{stage}": each for stage, each in stages.items()}
        until_first = timing([sum(s[stage] for stage in STAGES[:3]) for s in starts])
        timings[f"{case}_until_first_hand"] = until_first
        shown = [each.median_ms / 1000 for each in [*stages.values(), until_first]]
        rows.append([case.replace("_", " "), *shown])
    heads = [stage.replace("_", " ") for stage in (*STAGES, "until_first_hand")]
    print(table(["seconds of", *heads], rows))
    record("startup", timings, config=name)


if __name__ == "__main__":
    main(*sys.argv[1:])
