"""Examples per second of a training step, its memory, and how busy the device is.

    python -m benchmarks.training_step
    python -m benchmarks.training_step --compute_dtype=bfloat16 --batch_size=256 --steps=30

The whole jitted step of a run, augmentation and optimizer included, on examples that lie on the
device; an example is one photo, of which the network sees two views. Model FLOPs are those of the
network forward and, twice as many, backward, not what is computed again to save memory.
Utilisation is their share of what the device's data sheet promises for dense products in the
compute type; for devices that are not in the list here it is left out. It needs no data set.
"""

import argparse
import functools
import time
from typing import Any

import jax
import optax

from benchmarks.measure import peak_memory_mb, record, table, timing
from benchmarks.systems import load_config, size_of
from m3dhmr_jax import losses
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.training import optim
from m3dhmr_jax.training.step import Objective, init_state, make_train_step
from m3dhmr_jax.types import Config

PEAK_TFLOPS = {  # Dense, SXM; float32 products are TF32 there, JAX's default.
    ("H100", "bfloat16"): 989.4,
    ("H100", "float32"): 494.7,
    ("H200", "bfloat16"): 989.4,
    ("H200", "float32"): 494.7,
}


def peak_tflops(device_kind: str, compute_dtype: str) -> float | None:
    """What one device promises, if it is known."""
    for (name, of_type), tflops in PEAK_TFLOPS.items():
        if name in device_kind and of_type == compute_dtype:
            return tflops
    return None


def measured(config: Config, rounds: int, steps: int) -> tuple[list[float], float | None]:
    """Milliseconds of a step in each round; MB that the program needs, if the compiler says so."""
    hand = load_hand(config)
    network = create_network(config, hand)
    optimizer = optim.adam(
        optax.constant_schedule(config.optim.learning_rate), config.optim.clip_norm
    )
    step = make_train_step(
        network.graphdef,
        functools.partial(losses.two_view_terms, faces=hand.faces, crop_px=network.image_size),
        optimizer,
        Objective(dict(config.loss.weights)),
        AugmentConfig(size=network.image_size, **config.augment),
        config.optim.ema_decay,
        config.optim.accumulate_steps,
    )
    mesh = sharding.device_mesh()
    state = init_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    state, key = sharding.replicate(state, mesh), jax.random.key(0)
    batch = sharding.shard(fake_batch(config.batch_size), mesh)
    step = sharding.jit_step(step, mesh).lower(state, batch, key).compile()
    key = jax.device_put(key, sharding.replicated(mesh))
    times_ms = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = step(state, batch, key)
        jax.block_until_ready(state)
        times_ms.append(1000 * (time.perf_counter() - start) / steps)
    return times_ms[1:], program_mb(step.memory_analysis())


def program_mb(memory: Any) -> float | None:
    """Arguments, results and all between; results in the place of arguments count once."""
    if memory is None:
        return None
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (memory.argument_size_in_bytes + results + memory.temp_size_in_bytes) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", default="configs/resnet18.py", help="As of main.py; its task is 'mesh'."
    )
    parser.add_argument("--batch_size", type=int, default=32, help="Examples per step.")
    parser.add_argument(
        "--steps", type=int, default=3, help="Steps per round; they queue up, as in a run."
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="Rounds that count, after one that does not."
    )
    parser.add_argument("--compute_dtype", default="float32", help="config.model.compute_dtype.")
    parser.add_argument("--remat", action="store_true", help="config.model.remat.")
    parser.add_argument(
        "--accumulate_steps", type=int, default=1, help="config.optim.accumulate_steps."
    )
    args = parser.parse_args()
    config = load_config(args.config)
    config.batch_size = args.batch_size
    config.model.compute_dtype = args.compute_dtype
    config.model.remat = args.remat
    config.optim.accumulate_steps = args.accumulate_steps
    sharding.check_microbatches(config.batch_size, config.optim.accumulate_steps)
    times_ms, needed_mb = measured(config, args.rounds, args.steps)
    step = timing(times_ms)
    examples_per_s = 1000 * config.batch_size / step.median_ms
    # Two views; backward is twice forward; a multiply-add is two operations.
    example_gflop = 2 * 3 * 2 * size_of(config).multiply_adds / 1e9
    tflops = example_gflop * examples_per_s / 1e3
    peak = peak_tflops(jax.devices()[0].device_kind, config.model.compute_dtype)
    utilisation = tflops / (peak * jax.device_count()) if peak else None
    facts = {
        "batch_size": config.batch_size,
        "compute_dtype": config.model.compute_dtype,
        "remat": config.model.remat,
        "accumulate_steps": config.optim.accumulate_steps,
        "examples_per_s": round(examples_per_s, 2),
        "views_per_s": round(2 * examples_per_s, 2),
        "program_mb": needed_mb and round(needed_mb),
        "peak_mb": round(peak_memory_mb()),
        "model_tflops": round(tflops, 3),
        "model_flops_utilisation": utilisation and round(utilisation, 4),
    }
    rows = [["ms per step", step.median_ms], *([name, value] for name, value in facts.items())]
    print(table([args.config, ""], rows))
    record("training_step", {"step": step}, config=args.config, **facts)


if __name__ == "__main__":
    main()
