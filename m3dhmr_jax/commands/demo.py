"""`m3dhmr demo`: a first look."""

import argparse
from pathlib import Path

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=user_path,
        default=Path("runs/demo"),
        metavar="FOLDER",
        help="folder for the photos and the sheet (default: runs/demo)",
    )


def run_demo(options: argparse.Namespace) -> None:
    from m3dhmr_jax.predict.demo import show_demo

    show_demo(options.out)


COMMAND = Command(
    "renders photos with several hands and shows the meshes that are found",
    ("m3dhmr demo", "m3dhmr demo --out my_demo"),
    add_demo_options,
    run_demo,
)
