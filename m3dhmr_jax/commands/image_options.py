"""Options that commands which predict have in common."""

import argparse
from typing import TYPE_CHECKING

from m3dhmr_jax.runtime.files import user_path

if TYPE_CHECKING:
    from m3dhmr_jax.predict.run import PredictOptions

# Copies, as the library takes long to import; a test compares them.
SIDES = ("right", "left")
METHODS = ("fit", "network")
RUNTIMES = ("jax", "onnxruntime", "openvino", "openvino-bf16")


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Method, runtime, and those of `add_hand_options`."""
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="fit: a hand model is fitted to the detector's landmarks; network: the built-in "
        "network (default: fit)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="RUN",
        help="a network of your own, in place of --method: the folder of a run, whose newest valid "
        "checkpoint is used, or a weights file",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="jax",
        help="what runs the networks; onnxruntime and openvino start faster, openvino-bf16 is also "
        "faster on some CPUs, with errors of a millimetre (default: jax)",
    )
    add_hand_options(parser)


def add_hand_options(parser: argparse.ArgumentParser) -> None:
    """Hand model, side of the hands, and camera."""
    add = parser.add_argument
    add(
        "--hand",
        type=user_path,
        metavar="FILE",
        help="MANO_RIGHT.pkl, to be fitted in place of the built-in hand",
    )
    add(
        "--handedness",
        choices=SIDES,
        help="side of all hands, or of those whose box does not state it (default: estimated)",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--K",
        metavar="K",
        help="intrinsics: fx,fy,cx,cy in pixels, nine numbers, or a file: .json, .yaml, .txt "
        "or .npy",
    )
    camera.add_argument(
        "--fov",
        type=float,
        metavar="DEGREES",
        help="field of view across the longer side (default: from EXIF, else 60)",
    )


def parse_method_options(options: argparse.Namespace) -> "PredictOptions":
    """Side and camera of `add_hand_options`.

    Raises:
        UserError: if a value is invalid.
    """
    from m3dhmr_jax.predict.cameras import intrinsics_from_fov, parse_intrinsics
    from m3dhmr_jax.predict.run import PredictOptions

    if options.fov is not None:
        intrinsics_from_fov(options.fov, 1, 1)
    return PredictOptions(
        handedness=options.handedness,
        intrinsics=None if options.K is None else parse_intrinsics(options.K),
        fov_deg=options.fov,
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Those of `add_method_options`, and options for images from files."""
    add_method_options(parser)
    add = parser.add_argument
    add(
        "--boxes",
        type=user_path,
        metavar="FILE",
        help="hand boxes, CSV or JSON: image,x,y,width,height and, optionally, frame and "
        "handedness (default: hands are found)",
    )
    add(
        "--freihand",
        action="store_true",
        help="the images are FreiHAND's or like them: without K, use its field of view of 28 "
        "degrees; for a network without boxes, the centred crop of its evaluation",
    )
    add(
        "--views",
        type=int,
        choices=range(1, 7),
        default=1,
        metavar="N",
        help="average landmarks over 1 to 6 looks at each hand, except in tracked videos: slower, "
        "a little more accurate (default: 1)",
    )


def parse_image_options(options: argparse.Namespace) -> "PredictOptions":
    """The options of `add_image_options`.

    Raises:
        UserError: if a value is invalid.
    """
    return parse_method_options(options)._replace(
        boxes=options.boxes, freihand=options.freihand, views=options.views
    )
