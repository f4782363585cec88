"""Which decoder makes the best of given image features? Tables 1 to 3, and more, over seeds.

    python -m benchmarks.decoders features --checkpoint runs/small --data data/tfds/natural9 \\
        --out data/decoders
    python -m benchmarks.decoders train --features data/decoders --group tables
    python -m benchmarks.decoders table

The image side of a trained network runs once over a prepared dataset; every decoder then learns
from the same features, from random parameters, with the paper's losses, in equal steps. `features`
and `train` resume where they were interrupted. `train` may be started once per core: a run that
another process has begun is left to it. Each finished run appends one line of JSON; `table` prints
the runs of equal settings as a table each, and `--plot` draws their curves.
"""

import argparse
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import jax

from benchmarks.decoders.features import (
    Features,
    ImageSide,
    check_weights,
    compute,
    load,
    load_image_side,
    read_manifest,
)
from benchmarks.decoders.summary import SETTINGS, comparisons, plot, summary
from benchmarks.decoders.systems import (
    GROUPS,
    PAPER_CHANNELS,
    SYSTEMS,
    Surroundings,
    System,
    size_of,
)
from benchmarks.decoders.training import (
    Program,
    Settings,
    create_program,
    score,
    settings_id,
    state_file,
    train,
)
from benchmarks.measure import record, recorded
from m3dhmr_jax.builders import create_hierarchy
from m3dhmr_jax.datasets import check_hand_fits
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.network import ModelConfig
from m3dhmr_jax.runtime.command_line import one_line_errors
from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.runtime.precision import single_precision

SEEDS, STEPS, BATCH_SIZE, LEARNING_RATE = 5, 1500, 16, 1e-3


def train_all(folder: Path, systems: Sequence[System], seeds: int, settings: Settings) -> None:
    """Trains what is not recorded yet, the first seed of all systems first.

    Raises:
        UserError: if the features are not complete.
    """
    image_side = named_image_side(folder)
    training, test = load(folder, "train"), load(folder, "test")
    around = surroundings(image_side, training.features)
    programs: dict[str, Program] = {}
    states = folder / "states"
    states.mkdir(exist_ok=True)
    for seed, system in itertools.product(range(seeds), systems):
        run = settings_id(system, seed, settings)
        file = state_file(states, run)
        with contextlib.suppress(filelock.Timeout), _lock(file):
            if any(run.items() <= line.items() for line in recorded("decoders")):
                continue
            if system.name not in programs:
                programs[system.name] = create_program(system, settings, around)
            program = programs[system.name]
            state, progress = train(system, seed, settings, program, training, test, file)
            crop = jax.tree.map(lambda x: x[:1, 0], test.features)
            size = size_of(system, program.channels, around, crop)
            facts = run | size._asdict() | {"widths": program.channels, "group": system.group}
            facts |= score(program, state, test)._asdict()
            facts |= {"train_images": len(training.verts), "test_images": len(test.verts)}
            facts |= {"cpu_s": round(progress.cpu_s, 1), "curve": progress.curve}
            line = record("decoders", {}, **facts)
            file.unlink(missing_ok=True)
            print(
                f"{system.name}, seed {seed}: PA-MPJPE {line['pa_mpjpe_mm']:.2f} mm, "
                f"PA-MPVPE {line['pa_mpvpe_mm']:.2f} mm, {line['cpu_s']:.0f} CPU s",
                flush=True,
            )


def _lock(file: Path) -> contextlib.AbstractContextManager[Any]:
    """Raises filelock.Timeout if another process holds it: that one trains this run."""
    return filelock.FileLock(file.with_suffix(".lock"), timeout=0)


def named_image_side(folder: Path) -> ImageSide:
    """The network whose features are in `folder`.

    Raises:
        UserError: if there are none, or their network has other weights by now.
    """
    manifest = read_manifest(folder)
    image_side = load_image_side(Path(manifest["checkpoint"]))
    check_weights(folder, manifest, manifest["checkpoint"], image_side.weights_id)
    return image_side


def surroundings(image_side: ImageSide, maps: Features) -> Surroundings:
    fields = dict(image_side.config.model)
    hierarchy = create_hierarchy(fields.pop("hierarchy"), image_side.hand, ModelConfig(**fields))
    channels = maps.encoding.shape[-1], maps.finest.shape[-1]
    return Surroundings(*channels, image_side.hand, hierarchy)


def prepared_in(folder: Path) -> Path:
    """The prepared dataset in `folder`; raises UserError if there is none."""
    found = sorted(folder.glob("*/*/dataset_info.json"))
    if not found:
        raise UserError(
            f"--data={folder}: no prepared dataset there; create one with m3dhmr prepare"
        )
    return found[0].parent


def parse_channels(text: str) -> tuple[int, ...]:
    """Four widths; raises UserError if there are not four or one is no positive number."""
    widths = text.split(",")
    if len(widths) != 4 or not all(width.isdecimal() and int(width) for width in widths):
        raise UserError(f"--channels={text} must be four whole numbers, such as 64,32,16,8")
    return tuple(map(int, widths))


def print_summaries(plot_file: Path | None) -> None:
    """Prints a table for each comparison; draws the curves of the newest."""
    found = comparisons(recorded("decoders"))
    if not found:
        raise UserError("no finished runs: train some with python -m benchmarks.decoders train")
    for lines in found:
        print(", ".join(f"{name}={lines[0][name]}" for name in SETTINGS))
        print(summary(lines), end="\n\n")
    if plot_file:
        with write_atomic(plot_file) as partial:
            partial.write_text(plot(found[-1]), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser("python -m benchmarks.decoders")
    commands = whole.add_subparsers(dest="command", required=True)
    one = commands.add_parser("features", help="runs the image side once")
    one.add_argument("--checkpoint", type=Path, required=True, help="a run or a weights file")
    one.add_argument("--data", type=Path, required=True, help="a prepared dataset")
    one.add_argument("--out", type=Path, required=True, help="folder of the features")
    one = commands.add_parser("train", help="trains decoders on the features")
    one.add_argument("--features", type=Path, required=True, help="folder of the features")
    one.add_argument("--group", choices=GROUPS, action="append", help="default: all groups")
    one.add_argument("--system", choices=SYSTEMS, action="append", help="default: all of them")
    one.add_argument("--seeds", type=int, default=SEEDS, help="how many, from 0 on")
    one.add_argument("--channels", default=",".join(map(str, PAPER_CHANNELS)), help="four widths")
    one.add_argument("--steps", type=int, default=STEPS, help="of each run")
    one.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="images of a step")
    one.add_argument("--learning_rate", type=float, default=LEARNING_RATE)
    one = commands.add_parser("table", help="prints the finished runs")
    one.add_argument("--plot", type=Path, help="an SVG of the newest comparison's curves")
    return whole


@single_precision()
def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser().parse_args(arguments)
    enable_compilation_cache()
    if flags.command == "features":
        image_side, data = load_image_side(flags.checkpoint), prepared_in(flags.data)
        check_hand_fits(data, image_side.hand)
        compute(image_side, data, flags.out)
    elif flags.command == "train":
        systems = [
            system
            for name, system in SYSTEMS.items()
            if system.group in (flags.group or GROUPS) and name in (flags.system or SYSTEMS)
        ]
        settings = Settings(
            channels=parse_channels(flags.channels),
            steps=flags.steps,
            batch_size=flags.batch_size,
            learning_rate=flags.learning_rate,
            features=read_manifest(flags.features)["weights"],
        )
        train_all(flags.features, systems, flags.seeds, settings)
    else:
        print_summaries(flags.plot)


if __name__ == "__main__":
    with one_line_errors():
        main()
