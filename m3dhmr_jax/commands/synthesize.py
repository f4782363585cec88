"""`m3dhmr synthesize`: rendered datasets."""

import argparse
import os

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path

# A copy, as the library takes long to import; a test compares them.
RECIPES = ("full", "natural", "quickstart")


def add_synthesize_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--out",
        type=user_path,
        required=True,
        metavar="FOLDER",
        help="a new folder for the dataset",
    )
    add("--train", type=int, default=32560, metavar="N", help="training hands (default: 32560)")
    add("--test", type=int, default=3960, metavar="N", help="evaluation hands (default: 3960)")
    add("--seed", type=int, default=0, help="same seed, same images (default: 0)")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one per core)",
    )
    add(
        "--recipe",
        choices=RECIPES,
        default="full",
        help="the variety of scenes (default: full)",
    )
    add(
        "--backgrounds",
        type=int,
        choices=(1, 4),
        default=1,
        help="images per training hand, 4 as in FreiHAND (default: 1)",
    )
    add(
        "--hand",
        type=user_path,
        metavar="FILE",
        help="MANO_RIGHT.pkl (default: the built-in hand)",
    )
    add(
        "--sheet",
        type=user_path,
        metavar="FILE",
        help="also write a contact sheet of the first 24 images; if the dataset is complete, only "
        "the sheet",
    )


def run_synthesize(options: argparse.Namespace) -> None:
    from m3dhmr_jax.hand import load_mano
    from m3dhmr_jax.synthetic import RECIPES, write_dataset
    from m3dhmr_jax.synthetic.contact_sheet import write_contact_sheet
    from m3dhmr_jax.synthetic.writer import is_finished

    if options.sheet is None or not is_finished(options.out):
        write_dataset(
            options.out,
            options.train,
            options.test,
            options.seed,
            options.workers,
            RECIPES[options.recipe],
            options.backgrounds,
            load_mano(options.hand) if options.hand else None,
        )
    if options.sheet is not None:
        write_contact_sheet(options.out, options.sheet)


COMMAND = Command(
    "renders a synthetic dataset in FreiHAND's layout",
    (
        "m3dhmr synthesize --out data/synthetic --train 200 --test 20",
        "m3dhmr synthesize --out data/synthetic --sheet sheet.jpg",
        "m3dhmr synthesize --out data/mano --hand MANO_RIGHT.pkl --backgrounds 4",
    ),
    add_synthesize_options,
    run_synthesize,
)
