"""`m3dhmr webcam`: hands of a camera, live."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.commands.image_options import add_method_options, parse_method_options


def add_webcam_options(parser: argparse.ArgumentParser) -> None:
    add_method_options(parser)
    add = parser.add_argument
    add("--camera", type=int, default=0, metavar="N", help="index of the camera (default: 0)")
    add(
        "--port",
        type=int,
        help="port of a page to this computer alone (default: a window of OpenCV; without windows, "
        "as in its headless build, the page on port 8080)",
    )
    add(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="filter the hands over time (One-Euro; default: yes)",
    )


def run_webcam(options: argparse.Namespace) -> None:
    from m3dhmr_jax.predict.inputs import find_inputs
    from m3dhmr_jax.predict.predictor import load_predictor
    from m3dhmr_jax.predict.webcam import show_camera

    (source,) = find_inputs([], options.camera).inputs
    predict_options = parse_method_options(options)._replace(smooth=options.smooth)
    predictor = load_predictor(options.checkpoint, options.hand, options.method, options.runtime)
    show_camera(predictor, source, predict_options, options.port)


COMMAND = Command(
    "shows the hands of a camera, live in a window or a browser page",
    ("m3dhmr webcam", "m3dhmr webcam --camera 1 --fov 75 --port 8081"),
    add_webcam_options,
    run_webcam,
)
