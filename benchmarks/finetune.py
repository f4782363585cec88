"""What fine-tuning on labelled photos changes: before and after, by source, with several seeds.

    m3dhmr label digits/ --handedness right --out data/digits
    REAL_DIR=... python -m benchmarks.finetune --weights runs/small --labelled data/digits \\
        --rendered data/tfds/natural0 --steps 2000 --out runs/finetune

Trains `configs/finetune.py` from the weights, 30 % of the examples from the labelled photos and
70 % from the rendered ones, once for each seed, and scores each network as
`benchmarks.network_accuracy` does. The labelled photos are Sign Language Digits, whose development
photos in REAL_DIR are scored: these, and the other photos of the same people, are kept out of the
training set (`--keep-out none` takes all, for labelled photos of another kind).

One JSON line for each network, source and number of looks. A call that is repeated continues the
trainings in `--out`.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import record
from benchmarks.network_accuracy import print_table, real_sources, score_network
from configs import finetune
from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.data import loader
from m3dhmr_jax.datasets import open_mix, prepare_folder
from m3dhmr_jax.labelling.labelled_set import is_finished, read_labels, set_id
from m3dhmr_jax.labelling.reject import copy_without
from m3dhmr_jax.training.train import train
from m3dhmr_jax.types import Config

RENDERED_SHARE = 0.7
# The ten digits of a person were taken in a row, so all have numbers this near to each other; a few
# photos of the person before or after are kept out with them.
SAME_PERSON = 10


def digit_number(path: str) -> int | None:
    """The number of a Sign Language Digits photo, IMG_1118.JPG or 0_img_1118.jpg; None: another."""
    found = re.search(r"(?:^|[/_])img_(\d+)\.jpe?g$", path, re.IGNORECASE)
    return int(found[1]) if found else None


def kept_out(sources: Iterable[str], development: Iterable[str]) -> set[str]:
    """The photos that show a person of the development photos."""
    numbers = {number for path in development if (number := digit_number(path)) is not None}
    near = {number + i for number in numbers for i in range(-SAME_PERSON, SAME_PERSON + 1)}
    return {source for source in sources if digit_number(source) in near}


def development_paths(real: Path) -> list[str]:
    """The original paths of the digits among the development photos."""
    photos = json.loads((real / "labels.json").read_text())["photos"]
    return [photo["path"] for photo in photos if photo["tag"] == "digits"]


def training_set(labelled: Path, development: Sequence[str], out: Path) -> Path:
    """The labelled set without what `kept_out` says."""
    if not is_finished(out):
        hands = read_labels(labelled)["hands"]
        rejected = kept_out({hand["source"] for hand in hands}, development)
        images = sorted(hand["image"] for hand in hands if hand["source"] in rejected)
        print(f"{len(images)} of {len(hands)} hands are kept out: people of development photos")
        if not images:
            return labelled
        out.parent.mkdir(parents=True, exist_ok=True)
        list_path = out.with_name("kept_out.json")
        list_path.write_text(json.dumps({"set": set_id(labelled), "rejected": images}))
        copy_without([str(labelled)], [list_path], out)
    return out


def finetune_config(
    weights: str, labelled: Path, prepared: Path, rendered: str, steps: int, seed: int
) -> Config:
    """`configs/finetune.py`, whose schedule is stretched to so many steps."""
    config: Any = finetune.get_config(weights)
    config.seed = seed
    config.data.source.folder = str(labelled)
    config.data.source.prepared = str(prepared)
    config.data.mix = ((rendered, RENDERED_SHARE),)
    sets = prepare_folder(labelled, prepared), open_mix(load_hand(config), config.data.mix)[0][0]
    examples = sum(loader.size(each, "train") for each in sets)
    epochs = steps / (examples // config.batch_size)
    stretch = epochs / config.epochs
    config.epochs = epochs
    config.optim.warmup_epochs *= stretch
    config.optim.lr_decay_epochs = tuple(x * stretch for x in config.optim.lr_decay_epochs)
    config.checkpoint_every_epochs = epochs / 4
    config.eval.every_epochs = epochs
    return config


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser("python -m benchmarks.finetune")
    add = parser.add_argument
    add("--weights", required=True, metavar="RUN", help="workdir or weights file to start from")
    add("--labelled", required=True, type=Path, metavar="FOLDER", help="a set of m3dhmr label")
    add("--rendered", required=True, metavar="FOLDER", help="a prepared set of rendered images")
    add("--rendered-test", type=Path, metavar="FOLDER", help="in FreiHAND's layout, to be scored")
    add("--steps", type=int, default=2000)
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--keep-out", choices=("development", "none"), default="development")
    add("--out", type=Path, default=Path("runs/finetune"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    real = Path(os.environ["REAL_DIR"])
    development = development_paths(real) if options.keep_out == "development" else []
    labelled = training_set(options.labelled, development, options.out / "labelled")
    networks = {("before", None): options.weights}
    for seed in options.seeds:
        config = finetune_config(
            options.weights, labelled, options.out / "tfds", options.rendered, options.steps, seed
        )
        workdir = options.out / f"seed{seed}"
        train(config, workdir)
        networks["after", seed] = str(workdir)
    sources, lines = real_sources(real), []
    for (when, seed), path in networks.items():
        for scores in score_network(path, sources, options.rendered_test):
            line = {"when": when, "seed": seed, "steps": options.steps, **scores}
            record("finetune", {}, weights=options.weights, **line)
            lines.append(line)
    print_table(lines)
    return lines


if __name__ == "__main__":
    main()
