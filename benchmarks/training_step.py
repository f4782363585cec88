"""Examples per second of a training step, its memory, and how busy the device is.

    python -m benchmarks.training_step
    python -m benchmarks.training_step --compute_dtype=bfloat16 --batch_size=256 --steps=30

The whole jitted step of a run, augmentation and optimizer included, on a batch that stays on the
device; an example is one image, of which the network sees two views. Model FLOPs are those of the
forward pass and twice as many for the backward pass, without recomputation. Utilisation is their
ratio to the data sheet's peak for dense products in the compute dtype; it is omitted for devices
that are not listed here. No dataset is needed.
"""

import argparse
import time
from typing import Any

import jax

from benchmarks.measure import peak_memory_mb, record, table, timing
from benchmarks.systems import load_config, size_of
from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.training.optim import create_optimizer
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.training.step import create_step, init_state
from m3dhmr_jax.types import Config

STEPS_PER_EPOCH = 1000  # Only the learning rate's schedule depends on it.

PEAK_TFLOPS = {  # Dense, SXM; float32 products are TF32 there, JAX's default.
    ("H100", "bfloat16"): 989.4,
    ("H100", "float32"): 494.7,
    ("H200", "bfloat16"): 989.4,
    ("H200", "float32"): 494.7,
}


def peak_tflops(device_kind: str, compute_dtype: str) -> float | None:
    """The data sheet's peak of one device, None if it is not listed."""
    for (name, dtype), tflops in PEAK_TFLOPS.items():
        if name in device_kind and dtype == compute_dtype:
            return tflops
    return None


def measured(config: Config, rounds: int, steps: int) -> tuple[list[float], float | None]:
    """Milliseconds of a step in each round; MB that the program needs, if the compiler knows."""
    hand = load_hand(config)
    task = create_task(config, hand)
    mesh = sharding.device_mesh()
    optimizer = create_optimizer(config, STEPS_PER_EPOCH)
    schedule = Schedule.of(config, STEPS_PER_EPOCH * config.batch_size)
    network = task.network
    state = init_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    state, key = sharding.replicate(state, mesh), jax.random.key(0)
    batch = sharding.shard(fake_batch(config.batch_size), mesh)
    step = create_step(config, task, optimizer, schedule, mesh).lower(state, batch, key).compile()
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
    """Arguments, results and temporaries; donated arguments count once."""
    if memory is None:
        return None
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (memory.argument_size_in_bytes + results + memory.temp_size_in_bytes) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", default="configs/resnet18.py", help="as for main.py, with task 'mesh'"
    )
    parser.add_argument("--batch_size", type=int, default=32, help="examples per step")
    parser.add_argument(
        "--steps", type=int, default=3, help="steps per round; they are queued, as in a run"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="measured rounds, after one warm-up round"
    )
    parser.add_argument("--compute_dtype", default="float32", help="config.model.compute_dtype")
    parser.add_argument("--remat", action="store_true", help="config.model.remat")
    parser.add_argument(
        "--accumulate_steps", type=int, default=1, help="config.optim.accumulate_steps"
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
