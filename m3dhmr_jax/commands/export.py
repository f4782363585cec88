"""`m3dhmr export`: a trained network for other runtimes, or a page that finds hands."""

import argparse
from pathlib import Path

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_export_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--checkpoint",
        type=user_path,
        metavar="PATH",
        help="the workdir of a run, whose newest checkpoint is used, or a weights file; a page "
        "needs none, and offers the network next to the fit",
    )
    add(
        "--out",
        required=True,
        metavar="PATH",
        help="the file to write; its suffix says what: .onnx, .jaxexport (StableHLO) or .tflite; "
        "or a folder, such as page/, for a page that finds hands in the browser",
    )
    add(
        "--half",
        action="store_true",
        help="store large constants as float16: half the size, computed with in float32",
    )
    add_npm_option(parser)


def add_npm_option(parser: argparse.ArgumentParser) -> None:
    """Where the page's files come from that are not ours."""
    parser.add_argument(
        "--npm",
        type=user_path,
        metavar="PATH",
        help="for a page: a folder node_modules with onnxruntime-web, or its tarball (default: "
        "downloaded from the npm registry once)",
    )


def run_export(options: argparse.Namespace) -> None:
    from m3dhmr_jax.errors import UserError
    from m3dhmr_jax.export.run import export_network

    out = user_path(options.out)
    if options.out.endswith("/") or out.is_dir():
        write_page_folder(out, "export", options.checkpoint, options.npm)
        return
    if options.checkpoint is None:
        raise UserError(
            f"--out {options.out} needs --checkpoint: only a page, such as --out page/, does "
            "without one"
        )
    export_network(options.checkpoint, out, half=options.half)


def write_page_folder(out: Path, command: str, checkpoint: Path | None, npm: Path | None) -> None:
    """Writes the page with the installed detector, and prints its size."""
    from m3dhmr_jax.export.extras import require_extra
    from m3dhmr_jax.predict.detector_weights import load_detector_weights

    require_extra("export", "onnx", "onnxruntime")
    from m3dhmr_jax.export.page_folder import write_page

    size_bytes = write_page(
        out, load_detector_weights(), command=command, checkpoint=checkpoint, npm=npm
    )
    print(f"{out}: a browser fetches {size_bytes / 1e6:.1f} MB of it, if the host compresses it")


COMMAND = Command(
    'exports a trained network to run without JAX (pip install "m3dhmr_jax[export]")',
    (
        "m3dhmr export --checkpoint runs/quickstart --out hand.onnx",
        "m3dhmr export --checkpoint runs/quickstart --out hand.jaxexport",
        "m3dhmr export --checkpoint weights/mobrecon.safetensors --out mobrecon.onnx --half",
        "m3dhmr export --out page/",
    ),
    add_export_options,
    run_export,
)
