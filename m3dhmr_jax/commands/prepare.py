"""`m3dhmr prepare`: datasets ready for training."""

import argparse
from pathlib import Path

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "folder",
        type=user_path,
        nargs="?",
        metavar="FOLDER",
        help="a folder in FreiHAND's official layout (default: download the official archives)",
    )
    add(
        "--out",
        type=user_path,
        default=Path("data/tfds"),
        metavar="FOLDER",
        help="folder for prepared datasets (default: data/tfds)",
    )
    add(
        "--hand",
        type=user_path,
        metavar="FILE",
        help="MANO_RIGHT.pkl, for releases without annotation files of vertices",
    )


def run_prepare(options: argparse.Namespace) -> None:
    from m3dhmr_jax.datasets import prepare_folder

    print(prepare_folder(options.folder, options.out, options.hand))


COMMAND = Command(
    "prepares a dataset in FreiHAND's layout for training, once",
    (
        "m3dhmr prepare data/quickstart",
        "m3dhmr prepare data/FreiHAND_pub_v2 --out data/tfds/freihand",
    ),
    add_prepare_options,
    run_prepare,
)
