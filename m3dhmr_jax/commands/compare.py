"""`m3dhmr compare`: two networks side by side."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "the folder of a run, a weights file, network (the built-in one) or fit"
    add("before", metavar="BEFORE", help=what)
    add("after", metavar="AFTER", help=f"what it is compared with: {what}")
    add(
        "--images",
        type=user_path,
        required=True,
        metavar="FOLDER",
        help="a set of m3dhmr label, or another one in FreiHAND's layout, whose evaluation split "
        "is scored; or a folder of photos, which are shown",
    )
    add(
        "--out",
        type=user_path,
        metavar="FOLDER",
        help="new or empty folder for the page and its numbers (default: the first of comparison, "
        "comparison-2, ... that is)",
    )
    add(
        "--replace",
        action="store_true",
        help="remove the results of an earlier call from --out first, and nothing else",
    )


def run_compare(options: argparse.Namespace) -> None:
    from m3dhmr_jax.evaluate.comparison.run import compare

    names = options.before, options.after
    compare(names, options.images, options.out, replace=options.replace)


COMMAND = Command(
    "shows two networks side by side on images, with scores where there are labels",
    (
        "m3dhmr compare fit runs/quickstart --images data/quickstart",
        "m3dhmr compare runs/quickstart runs/mine --images data/mine --out runs/mine/comparison",
        "m3dhmr compare network fit --images my_photos/",
    ),
    add_compare_options,
    run_compare,
)
