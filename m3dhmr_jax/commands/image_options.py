"""Options that all commands that predict have in common."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m3dhmr_jax.predict.run import PredictOptions

# A copy, as the library takes long to import; a test compares them.
SIDES = ("right", "left")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Checkpoint, hands and camera, for all commands that predict."""
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="RUN",
        help="the folder of a run, whose newest valid checkpoint is used, or a weights file",
    )
    add(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="hand boxes, CSV or JSON: image,x,y,width,height and, optionally, frame and "
        "handedness (default: each image shows one hand)",
    )
    add(
        "--handedness",
        choices=SIDES,
        default="right",
        help="side of all hands, or of those whose box does not state it (default: right)",
    )
    add(
        "--freihand",
        action="store_true",
        help="the images are FreiHAND's or like them: without boxes, use the centred crop of its "
        "evaluation; without K, its field of view of 28 degrees",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--K", metavar="K", help="intrinsics: fx,fy,cx,cy in pixels, nine numbers, or a .json file"
    )
    camera.add_argument(
        "--fov",
        type=float,
        metavar="DEGREES",
        help="field of view across the longer side (default: from EXIF, else 60)",
    )


def parse_image_options(options: argparse.Namespace) -> "PredictOptions":
    """The options of `add_image_options`.

    Raises:
        UserError: if a value is invalid.
    """
    from m3dhmr_jax.predict.cameras import intrinsics_from_fov, parse_intrinsics
    from m3dhmr_jax.predict.run import PredictOptions

    if options.fov is not None:
        intrinsics_from_fov(options.fov, 1, 1)
    return PredictOptions(
        boxes=options.boxes,
        handedness=options.handedness,
        intrinsics=None if options.K is None else parse_intrinsics(options.K),
        fov_deg=options.fov,
        freihand=options.freihand,
    )
