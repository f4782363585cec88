"""`m3dhmr demo`: a first look."""

import argparse
from pathlib import Path

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.commands.export import add_npm_option, write_page_folder
from m3dhmr_jax.runtime.files import user_path


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=int, default=8080, help="port of the page (default: 8080)")
    add(
        "--sheet",
        type=user_path,
        nargs="?",
        const=Path("runs/demo"),
        metavar="FOLDER",
        help="no page: render photos of several hands, and draw the meshes that are found on one "
        "sheet in this folder (default: runs/demo)",
    )
    add_npm_option(parser)


def run_demo(options: argparse.Namespace) -> None:
    if options.sheet is not None:
        from m3dhmr_jax.predict.demo import show_demo

        show_demo(options.sheet)
        return
    from m3dhmr_jax.export.npm_files import cache_folder
    from m3dhmr_jax.export.serve import serve_page

    folder = cache_folder() / "page"
    write_page_folder(folder, "demo", None, options.npm)
    serve_page(folder, options.port)


COMMAND = Command(
    "shows the hands of your camera or photos in a browser page, to this computer alone",
    ("m3dhmr demo", "m3dhmr demo --sheet my_demo"),
    add_demo_options,
    run_demo,
)
