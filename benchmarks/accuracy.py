"""Is the design worth it? M3DHMR, its ablations of table 1 and MobRecon, on one synthetic set.

    python -m benchmarks.accuracy --steps 4000

Each system has ResNet-18, starts from the same seed, sees the same images in the same order under
its own config's losses, and goes through its config's whole schedule in `--steps` steps. Then it is
scored on held-out images. The images are rendered here and stay on the device; neither grain nor
tensorflow-datasets is needed. Prints one table and appends one line of JSON per system as soon as
it is scored, so an interrupted run keeps what it has measured. The run time is that of a step times
the number of systems, plus compilation. On a GPU that one system does not fill, run several calls
at a time: render once, then use `--images` and `--system`.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from benchmarks.measure import record, table
from benchmarks.systems import SYSTEMS, System, load_config
from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate.scoring import score_batches
from m3dhmr_jax.metrics.reported import REPORTED_METRICS, format_score
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.synthetic import FULL, write_dataset
from m3dhmr_jax.tasks import Task, create_task
from m3dhmr_jax.training.optim import create_optimizer
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.training.step import TrainState, create_step, init_state
from m3dhmr_jax.types import Batch, Config

MOBRECON = "configs/mobrecon.py:backbone=resnet18"
COMPARED = tuple(system for system in SYSTEMS if system.table == 1 or system.config == MOBRECON)
N_TRAIN, N_TEST, STEPS = 16_000, 2_000, 4_000


def render(n_train: int, n_test: int, seed: int) -> tuple[Batch, Batch]:
    """Training and test images of the full recipe."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        write_dataset(folder, n_train, n_test, seed, workers=os.cpu_count() or 1, recipe=FULL)
        return read(folder, "train"), read(folder, "test")


def read(folder: Path, split: str) -> Batch:
    """All images of a split, one for each annotation, in one batch."""
    labels = freihand.read_annotations(folder, split)
    n = len(labels.joints_m)
    images = np.stack([_read_image(folder / freihand.image_name(split, i)) for i in range(n)])
    masks = [folder / freihand.FOLDERS[split] / "mask" / f"{i:08d}.jpg" for i in range(n)]
    return Batch(
        image=images,
        intrinsics=labels.intrinsics,
        joints_m=labels.joints_m,
        verts_m=labels.verts_m,
        # Only training crops follow the mask.
        bbox_px=np.stack([freihand.mask_box_px(mask) for mask in masks])
        if split == "train"
        else np.tile(freihand.centred_box_px(*images.shape[1:3]), (n, 1)),
        index=np.arange(n, dtype=np.int32),
        valid=np.ones(n, bool),
    )


def _read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path}: not a readable image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def shuffled_batches(n: int, batch_size: int, seed: int) -> Iterator[Int[np.ndarray, " b"]]:
    """Indices of the batches, each image once per epoch; the same for every system."""
    rng = np.random.default_rng(seed)
    while True:
        shuffled = rng.permutation(n)
        yield from shuffled[: n - n % batch_size].reshape(-1, batch_size)


def train(config: Config, task: Task, images: Batch, steps: int) -> TrainState:
    """The state after `steps` steps; the config's epochs are shortened to fit.

    Raises:
        UserError: if there are fewer steps than epochs, or fewer images than one batch has.
    """
    steps_per_epoch = int(steps / config.epochs)
    if not steps_per_epoch:
        raise UserError(f"--steps={steps} must be at least the config's epochs={config.epochs:g}")
    if len(images.index) < config.batch_size:
        raise UserError(f"{len(images.index)} images are fewer than batch_size={config.batch_size}")
    mesh = sharding.device_mesh()
    optimizer = create_optimizer(config, steps_per_epoch)
    schedule = Schedule.of(config, steps_per_epoch * config.batch_size)
    step = create_step(config, task, optimizer, schedule, mesh)
    network = task.network
    state = init_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    state, key = sharding.replicate(state, mesh), jax.random.key(config.seed)
    take = jax.jit(
        lambda images, rows: jax.tree.map(lambda x: jnp.take(x, rows, axis=0), images),
        out_shardings=sharding.batch_sharding(mesh),
    )
    orders = shuffled_batches(len(images.index), config.batch_size, config.seed)
    for rows in itertools.islice(orders, steps):
        state, _ = step(state, take(images, rows), key)
    return jax.block_until_ready(state)


def score(config: Config, task: Task, images: Batch, state: TrainState) -> dict[str, float]:
    def errors(batch: Batch) -> Any:
        return task.error_fn(task.predict_step(state.eval_params, state.stats, batch), batch)

    starts = range(0, len(images.index), config.eval.batch_size)
    batches = (
        jax.tree.map(lambda x, at=at: x[at : at + config.eval.batch_size], images) for at in starts
    )
    return score_batches(errors, batches, task.scores)


def compare(
    systems: Sequence[System],
    images: tuple[Batch, Batch],
    steps: int,
    seed: int,
    adapt: Callable[[Config], None] = lambda config: None,
) -> list[dict[str, Any]]:
    """Trains and scores each system and returns the recorded lines; `adapt` changes the configs."""
    training, test = jax.device_put(images)
    lines = []
    for system in systems:
        config = load_config(system.config)
        config.seed = seed
        adapt(config)
        task = create_task(config, load_hand(config))
        start = time.perf_counter()
        state = train(config, task, training, steps)
        minutes = (time.perf_counter() - start) / 60
        result = score(config, task, test, state)
        facts = {"steps": steps, "batch_size": config.batch_size, "seed": seed}
        facts |= {"compute_dtype": config.model.compute_dtype}
        facts |= {"train_images": len(training.index), "test_images": len(test.index)}
        facts |= {"minutes": round(minutes, 2), **{name: result[name] for name in REPORTED_METRICS}}
        line = record("accuracy", {}, system=system.name, config=system.config, **facts)
        print(
            f"{system.config}: "
            + ", ".join(f"{n} {format_score(n, line[n])}" for n in REPORTED_METRICS)
        )
        lines.append(line)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.accuracy")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each system")
    parser.add_argument("--train", type=int, default=N_TRAIN, help="training images")
    parser.add_argument("--test", type=int, default=N_TEST, help="test images")
    parser.add_argument("--seed", type=int, default=0, help="seed of images, networks and order")
    parser.add_argument(
        "--images", type=Path, help="a folder in FreiHAND's layout (default: render)"
    )
    parser.add_argument(
        "--system",
        action="append",
        choices=[s.name for s in COMPARED],
        help="a system; may be repeated",
    )
    parser.add_argument("--compute_dtype", default="float32", help="config.model.compute_dtype")
    flags = parser.parse_args(arguments)
    systems = [s for s in COMPARED if not flags.system or s.name in flags.system]
    if flags.images:
        images = read(flags.images, "train"), read(flags.images, "test")
    else:
        images = render(flags.train, flags.test, flags.seed)

    def adapt(config: Config) -> None:
        config.model.compute_dtype = flags.compute_dtype

    lines = compare(systems, images, flags.steps, flags.seed, adapt)
    rows = [
        [
            line["system"],
            line["config"],
            *(format_score(name, line[name]) for name in REPORTED_METRICS),
        ]
        for line in lines
    ]
    print(table(["system", "config", *REPORTED_METRICS.values()], rows))


if __name__ == "__main__":
    main()
