"""Is the design worth it? M3DHMR, its ablations of table 1 and MobRecon, on one synthetic set.

    python -m benchmarks.accuracy --steps 4000

Each system has ResNet-18, starts from the same seed, sees the same photos in the same order under
its own config's losses, and goes through its config's whole schedule in `--steps` steps. Then it is
scored on photos that none has seen. The photos are rendered here and stay on the device; neither
grain nor tensorflow-datasets is needed. Prints one table and appends one line of JSON per system
as soon as it is scored, so a run that is cut off keeps what it has measured. How long a step takes,
times the systems, is how long the call takes; compilation comes on top. On a GPU that one system
does not fill, several calls at a time save that: render once, then `--photos` and `--system`.
"""

import argparse
import functools
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
from m3dhmr_jax import losses
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.data import freihand
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.evaluate.scoring import score_batches
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import hand_errors, make_predict_step
from m3dhmr_jax.metrics.freihand import SampleMetrics
from m3dhmr_jax.metrics.reported import REPORTED_METRICS, format_score
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.synthetic import FULL, write_dataset
from m3dhmr_jax.training.optim import create_optimizer
from m3dhmr_jax.training.step import Objective, TrainState, init_state, make_train_step
from m3dhmr_jax.types import Batch, Config

MOBRECON = "configs/mobrecon.py:backbone=resnet18"
COMPARED = tuple(system for system in SYSTEMS if system.table == 1 or system.config == MOBRECON)
N_TRAIN, N_TEST, STEPS = 16_000, 2_000, 4_000


def render(n_train: int, n_test: int, seed: int) -> tuple[Batch, Batch]:
    """Photos of all that the generator can draw, to train on and to score on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photos")
        write_dataset(folder, n_train, n_test, seed, workers=os.cpu_count() or 1, recipe=FULL)
        return read(folder, "train"), read(folder, "test")


def read(folder: Path, split: str) -> Batch:
    """All photos of a split, one for each annotation, in one batch."""
    labels = freihand.read_annotations(folder, split)
    n = len(labels.joints_m)
    photos = np.stack([_photo(folder / freihand.image_name(split, i)) for i in range(n)])
    masks = [folder / freihand.FOLDERS[split] / "mask" / f"{i:08d}.jpg" for i in range(n)]
    return Batch(
        image=photos,
        intrinsics=labels.intrinsics,
        joints_m=labels.joints_m,
        verts_m=labels.verts_m,
        # Only training crops follow the mask.
        bbox_px=np.stack([freihand.mask_box_px(mask) for mask in masks])
        if split == "train"
        else np.tile(freihand.centred_box_px(*photos.shape[1:3]), (n, 1)),
        index=np.arange(n, dtype=np.int32),
        valid=np.ones(n, bool),
    )


def _photo(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    photo = cv2.imread(str(path))
    if photo is None:
        raise ValueError(f"{path}: not a readable image, though it was just rendered; is it gone?")
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def orders(n: int, batch_size: int, seed: int) -> Iterator[Int[np.ndarray, " b"]]:
    """Rows of one batch after the other, each photo once per epoch; the same for every system."""
    rng = np.random.default_rng(seed)
    while True:
        shuffled = rng.permutation(n)
        yield from shuffled[: n - n % batch_size].reshape(-1, batch_size)


def train(
    config: Config, network: Network, hand: HandModel, photos: Batch, steps: int
) -> TrainState:
    """The state after `steps` steps: epochs of the config's schedule last as long as that takes.

    Raises:
        ValueError: if there are fewer steps than epochs, or fewer photos than one batch has.
    """
    steps_per_epoch = int(steps / config.epochs)
    if not steps_per_epoch:
        raise ValueError(
            f"steps={steps} must be at least epochs={config.epochs:g}: rates drop by the epoch"
        )
    if len(photos.index) < config.batch_size:
        raise ValueError(
            f"{len(photos.index)} photos are less than batch_size={config.batch_size}: render more"
        )
    optimizer = create_optimizer(config, steps_per_epoch)
    late = round(config.loss.consistency_start_epoch * steps_per_epoch)
    step = make_train_step(
        network.graphdef,
        functools.partial(losses.two_view_terms, faces=hand.faces, crop_px=network.image_size),
        optimizer,
        Objective(dict(config.loss.weights), {"con3d": late, "con2d": late}),
        AugmentConfig(size=network.image_size, **config.augment),
        config.optim.ema_decay,
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def step_on(state: TrainState, photos: Batch, rows: Any, key: Any) -> TrainState:
        return step(state, jax.tree.map(lambda x: jnp.take(x, rows, axis=0), photos), key)[0]

    state = init_state(network.params, network.stats, optimizer, config.optim.ema_decay)
    state = jax.tree.map(jnp.copy, state)  # The step consumes its own, not the network's.
    key = jax.random.key(config.seed)
    rows = orders(len(photos.index), config.batch_size, config.seed)
    for batch_rows in itertools.islice(rows, steps):
        state = step_on(state, photos, batch_rows, key)
    return jax.block_until_ready(state)


def score(
    config: Config, network: Network, hand: HandModel, photos: Batch, state: TrainState
) -> dict[str, float]:
    predict_step = make_predict_step(
        network.eval_graphdef, hand.joint_regressor, network.image_size
    )
    starts = range(0, len(photos.index), config.eval.batch_size)
    parts = (
        jax.tree.map(lambda x, at=at: x[at : at + config.eval.batch_size], photos) for at in starts
    )

    def errors(batch: Batch) -> SampleMetrics:
        return hand_errors(predict_step(state.eval_params, state.stats, batch), batch)

    return score_batches(errors, parts)


def compare(
    systems: Sequence[System],
    photos: tuple[Batch, Batch],
    steps: int,
    seed: int,
    adapt: Callable[[Config], None] = lambda config: None,
) -> list[dict[str, Any]]:
    """Trains and scores each system, and returns what was recorded; `adapt` changes configs."""
    training, test = jax.device_put(photos)
    lines = []
    for system in systems:
        config = load_config(system.config)
        config.seed = seed
        adapt(config)
        hand = load_hand(config)
        network = create_network(config, hand)
        start = time.perf_counter()
        state = train(config, network, hand, training, steps)
        minutes = (time.perf_counter() - start) / 60
        result = score(config, network, hand, test, state)
        facts = {"steps": steps, "batch_size": config.batch_size, "seed": seed}
        facts |= {"compute_dtype": config.model.compute_dtype}
        facts |= {"train_photos": len(training.index), "test_photos": len(test.index)}
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
    parser.add_argument("--steps", type=int, default=STEPS, help="of training, for each system")
    parser.add_argument("--train", type=int, default=N_TRAIN, help="photos")
    parser.add_argument("--test", type=int, default=N_TEST, help="photos")
    parser.add_argument("--seed", type=int, default=0, help="of photos, networks and their order")
    parser.add_argument("--photos", type=Path, help="a set in FreiHAND's layout; none renders one")
    parser.add_argument(
        "--system", action="append", choices=[s.name for s in COMPARED], help="one; may be repeated"
    )
    parser.add_argument("--compute_dtype", default="float32", help="config.model.compute_dtype")
    flags = parser.parse_args(arguments)
    systems = [s for s in COMPARED if not flags.system or s.name in flags.system]
    if flags.photos:
        photos = read(flags.photos, "train"), read(flags.photos, "test")
    else:
        photos = render(flags.train, flags.test, flags.seed)

    def adapt(config: Config) -> None:
        config.model.compute_dtype = flags.compute_dtype

    lines = compare(systems, photos, flags.steps, flags.seed, adapt)
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
