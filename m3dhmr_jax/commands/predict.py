"""`m3dhmr predict`: hands in images, videos and cameras."""

import argparse
from typing import TYPE_CHECKING

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.commands.image_options import add_image_options, parse_image_options
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import user_path

if TYPE_CHECKING:
    from m3dhmr_jax.predict.run import PredictOptions

# A copy, as the library takes long to import; a test compares them.
MESH_KINDS = ("obj", "ply", "glb")


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="images, videos, folders of them, or patterns in quotes",
    )
    add_image_options(parser)
    add(
        "--landmarks",
        type=user_path,
        metavar="FILE",
        help="fit the hand to these 2D landmarks, CSV or JSON: image and x0,y0 to x20,y20 in "
        "FreiHAND's order and, optionally, frame and handedness",
    )
    add("--camera", type=int, metavar="N", help="index of a camera, from 0")
    add(
        "--masks",
        type=user_path,
        metavar="FOLDER",
        help="hand masks from any segmenter, for a better depth: FOLDER/NAME.png for NAME.jpg, of "
        "its size, one channel, non-zero on the hand; for several hands, the number of the hand "
        "from 1, in the order of the boxes; without boxes, they come from the masks",
    )
    add(
        "--out",
        type=user_path,
        metavar="FOLDER",
        help="new or empty folder for the results (default: the first of hands, hands-2, ... that "
        "is)",
    )
    add(
        "--replace",
        action="store_true",
        help="remove the results of an earlier call from --out first, and nothing else",
    )
    add(
        "--meshes",
        metavar="KINDS",
        help=f"mesh files to write: any of {','.join(MESH_KINDS)}, or none (default: obj for "
        "images, none for videos)",
    )
    add("--frames", type=int, metavar="N", help="maximum number of frames of a video or camera")
    add(
        "--track",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="in videos, move the boxes with the hands (default: yes)",
    )
    add(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="in videos, filter the hands over time (One-Euro; default: no)",
    )


def parse_options(options: argparse.Namespace) -> "PredictOptions":
    """The options of `m3dhmr predict`.

    Raises:
        UserError: if a value is invalid.
    """
    if options.frames is not None and options.frames < 1:
        raise UserError(f"--frames {options.frames} must be at least 1")
    return parse_image_options(options)._replace(
        images=options.images,
        camera=options.camera,
        masks=options.masks,
        landmarks=options.landmarks,
        track=options.track,
        smooth=options.smooth,
        mesh_kinds=None if options.meshes is None else _mesh_kinds(options.meshes),
        frames=options.frames,
    )


def _mesh_kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind for kind in text.split(",") if kind not in ("", "none"))
    unknown = [kind for kind in kinds if kind not in MESH_KINDS]
    if unknown:
        raise UserError(f"--meshes {text}: {', '.join(unknown)} is not one of {MESH_KINDS}")
    return kinds


def run_predict(options: argparse.Namespace) -> None:
    from m3dhmr_jax.predict.predictor import load_predictor
    from m3dhmr_jax.predict.run import predict_files

    predict_files(
        lambda: load_predictor(options.checkpoint, options.hand, options.method, options.runtime),
        parse_options(options),
        options.out,
        replace=options.replace,
    )


COMMAND = Command(
    "recovers hands in images, videos and cameras",
    (
        "m3dhmr predict --checkpoint runs/quickstart --freihand "
        "data/quickstart/evaluation/rgb/0000000*.jpg",
        "m3dhmr predict my_images/",
        "m3dhmr predict --method network my_images/",
        "m3dhmr predict --checkpoint runs/quickstart --boxes boxes.csv --fov 70 my_images/",
        "m3dhmr predict --checkpoint runs/quickstart --masks my_masks/ my_images/",
        "m3dhmr predict --camera 0 --smooth",
    ),
    add_predict_options,
    run_predict,
)
