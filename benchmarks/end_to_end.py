"""Examples per second of a training run: loading, transfer, the step and its logging.

    python -m benchmarks.end_to_end --images=20000 --config=configs/resnet18.py --workers=12
    python -m benchmarks.end_to_end --data=data/tfds/freihand/...  # A prepared dataset.

Next to it are its two halves alone, the loader and the step on one batch: the slower one is the
bottleneck. An example is one image, of which the network sees two views. The last line states how
long the paper's schedule, 38 epochs of 130,240 examples, takes at this rate. Images are rendered
first if no dataset is named, and read from files in the page cache.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from benchmarks.measure import record, table, timing
from benchmarks.systems import load_config
from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.data import loader
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.synthetic import FULL, write_dataset
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.training.optim import create_optimizer
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.training.step import create_step, init_state
from m3dhmr_jax.types import Config
from tfds_freihand.prepare import prepare

PAPER_EXAMPLES = 38 * 130_240


def rounds_ms(one: Callable[[], object], steps: int, rounds: int) -> list[float]:
    """Milliseconds per call, for each round of `steps` calls."""
    for _ in range(max(steps // 5, 1)):
        last = one()
    times_ms = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            last = one()
        jax.block_until_ready(last)
        times_ms.append(1000 * (time.perf_counter() - start) / steps)
    return times_ms


def measured(config: Config, data: Path, steps: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per batch: read alone, computed alone, and both as in a run."""
    task = create_task(config, load_hand(config))
    schedule = Schedule.of(config, loader.size(data, "train"))
    mesh = sharding.device_mesh()
    optimizer = create_optimizer(config, schedule.steps_per_epoch)
    step = create_step(config, task, optimizer, schedule, mesh)
    network, key = task.network, jax.random.key(config.seed)
    state = init_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    state = sharding.replicate(state, mesh)
    pending = None

    def trained(batch: object) -> object:
        """A step; the terms of the one before are read while it runs, as the run's logger does."""
        nonlocal state, pending
        state, terms = step(state, batch, key)
        jax.device_get(pending)
        pending = terms
        return terms

    with contextlib.closing(
        loader.train_batches(data, config.batch_size, config.seed, **config.data.loader)
    ) as batches:
        batch = sharding.shard(next(batches), mesh)
        calls = {
            "end_to_end": lambda: trained(sharding.shard(next(batches), mesh)),
            "step": lambda: trained(batch),
            "loader": lambda: next(batches),
        }
        return {name: rounds_ms(call, steps, rounds) for name, call in calls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/resnet18.py", help="config, as for main.py")
    parser.add_argument(
        "--data", default=None, help="prepared dataset: the folder of its dataset_info.json"
    )
    parser.add_argument(
        "--images", type=int, default=2000, help="images to render if there is no --data"
    )
    parser.add_argument("--renderers", type=int, default=2, help="processes that render")
    parser.add_argument("--batch_size", type=int, default=32, help="examples per step")
    parser.add_argument(
        "--steps", type=int, default=20, help="steps per round, after a fifth of them as warm-up"
    )
    parser.add_argument("--rounds", type=int, default=3, help="Rounds.")
    parser.add_argument("--threads", type=int, default=2, help="config.data.loader.threads.")
    parser.add_argument("--workers", type=int, default=0, help="config.data.loader.workers.")
    parser.add_argument("--compute_dtype", default="float32", help="config.model.compute_dtype.")
    args = parser.parse_args()
    config = load_config(args.config)
    config.batch_size = args.batch_size
    config.model.compute_dtype = args.compute_dtype
    config.data.loader.threads, config.data.loader.workers = args.threads, args.workers
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if args.data is None:
            write_dataset(out / "images", args.images, 1, 0, args.renderers, recipe=FULL)
            data = prepare(out / "images", out / "prepared")
        else:
            data = Path(args.data)
        times_ms = measured(config, data, args.steps, args.rounds)
    timings = {name: timing(each) for name, each in times_ms.items()}
    rates = {name: 1000 * config.batch_size / each.median_ms for name, each in timings.items()}
    hours = PAPER_EXAMPLES / rates["end_to_end"] / 3600
    rows = [[name, each.median_ms, rates[name]] for name, each in timings.items()]
    print(table(["", f"ms per {config.batch_size}", "examples/s"], rows))
    print(f"The paper's schedule at this rate: {hours:.2f} h")
    record(
        "end_to_end",
        timings,
        config=args.config,
        batch_size=config.batch_size,
        compute_dtype=config.model.compute_dtype,
        loader={"threads": args.threads, "workers": args.workers},
        examples_per_s={name: round(rate, 1) for name, rate in rates.items()},
        paper_schedule_h=round(hours, 2),
    )


if __name__ == "__main__":
    main()
