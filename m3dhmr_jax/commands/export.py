"""`m3dhmr export`: a trained network for other runtimes."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_export_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--checkpoint",
        type=user_path,
        required=True,
        metavar="PATH",
        help="the workdir of a run, whose newest checkpoint is used, or a weights file",
    )
    add(
        "--out",
        type=user_path,
        required=True,
        metavar="FILE",
        help="the file to write; its suffix says what: .onnx, .jaxexport (StableHLO) or .tflite",
    )
    add(
        "--half",
        action="store_true",
        help="store large constants as float16: half the size, computed with in float32",
    )


def run_export(options: argparse.Namespace) -> None:
    from m3dhmr_jax.export.run import export_network

    export_network(options.checkpoint, options.out, half=options.half)


COMMAND = Command(
    'exports a trained network to run without JAX (pip install "m3dhmr_jax[export]")',
    (
        "m3dhmr export --checkpoint runs/quickstart --out hand.onnx",
        "m3dhmr export --checkpoint runs/quickstart --out hand.jaxexport",
        "m3dhmr export --checkpoint weights/mobrecon.safetensors --out mobrecon.onnx --half",
    ),
    add_export_options,
    run_export,
)
