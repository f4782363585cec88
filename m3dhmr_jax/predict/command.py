"""The command line of prediction, wherever the network comes from."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from m3dhmr_jax.predict.cameras import intrinsics_from_field, parse_intrinsics
from m3dhmr_jax.predict.outputs import MESH_KINDS
from m3dhmr_jax.predict.predictor import SIDES, HandMeshPredictor
from m3dhmr_jax.predict.run import Wishes, predict_files


def make_parser(program: str, out: Path) -> argparse.ArgumentParser:
    """The options; `out` is where results go unless told otherwise."""
    parser = argparse.ArgumentParser(
        program, description="Finds hands in photos, videos and cameras.", allow_abbrev=False
    )
    add = parser.add_argument
    add("photos", nargs="*", help="photos, videos, folders of them, or patterns in quotes")
    add("--images", action="append", default=[], metavar="PHOTO", help="the same, as an option")
    add("--out", type=Path, default=out, metavar="FOLDER", help=f"of the results; {out} if none")
    add("--camera", type=int, metavar="N", help="number of a camera, 0 for the first")
    add_view_options(parser)
    add("--track", action=argparse.BooleanOptionalAction, default=True,
        help="in videos, move boxes with the hands")  # fmt: skip
    add("--smooth", action="store_true", help="in videos, filter the answers (One-Euro)")
    add("--meshes", metavar="KINDS", help=f"any of {','.join(MESH_KINDS)}, or none; obj for photos "
        "and none for videos unless given")  # fmt: skip
    add("--frames", type=int, metavar="N", help="at most so many of each video or camera")
    return parser


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Where hands are in the photos, and which camera took these."""
    add = parser.add_argument
    add("--boxes", type=Path, metavar="FILE", help="CSV or JSON: image,x,y,width,height and, "
        "if wanted, frame and handedness; without it, the whole picture is one hand")  # fmt: skip
    add("--handedness", choices=SIDES, default="right", help="of hands of which no box says it")
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument("--K", metavar="K", help="fx,fy,cx,cy in pixels, nine numbers, or a .json")
    camera.add_argument("--fov", type=float, metavar="DEG", help="field of view across the longer "
        "side; without it and --K, what EXIF says, else 60 degrees")  # fmt: skip


def view_wishes(options: argparse.Namespace) -> Wishes:
    """What `add_view_options` asked; raises ValueError or FileNotFoundError if a value is bad."""
    if options.fov is not None:
        intrinsics_from_field(options.fov, 1, 1)
    return Wishes(
        boxes=options.boxes,
        handedness=options.handedness,
        intrinsics=None if options.K is None else parse_intrinsics(options.K),
        field_deg=options.fov,
    )


def wishes_of(options: argparse.Namespace) -> Wishes:
    """Raises ValueError or FileNotFoundError if an option has a bad value."""
    if options.frames is not None and options.frames < 1:
        raise ValueError(f"--frames {options.frames} must be at least 1")
    return view_wishes(options)._replace(
        images=[*options.images, *options.photos],
        camera=options.camera,
        follows=options.track,
        smooths=options.smooth,
        mesh_kinds=None if options.meshes is None else _mesh_kinds(options.meshes),
        frames=options.frames,
    )


def _mesh_kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind for kind in text.split(",") if kind not in ("", "none"))
    unknown = [kind for kind in kinds if kind not in MESH_KINDS]
    if unknown:
        raise ValueError(f"--meshes {text}: {', '.join(unknown)} is none of {MESH_KINDS}")
    return kinds


def run_command(options: argparse.Namespace, load: Callable[[], HandMeshPredictor]) -> int:
    """Predicts; 2 if something was refused or left out, and what was written before stays."""
    try:
        predict_files(load, wishes_of(options), options.out)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0
