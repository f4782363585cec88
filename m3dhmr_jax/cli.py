"""The console command: `m3dhmr predict | score | convert | synthesize | prepare | bulk`.

A command is a function that adds its options and one that runs it, listed in COMMANDS. Libraries
that take long to import are imported by the latter, so `--help` is instant.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from m3dhmr_jax.errors import UserError

if TYPE_CHECKING:
    from m3dhmr_jax.predict.run import PredictOptions

# Copies, as the library takes long to import; a test compares them.
SIDES = ("right", "left")
MESH_KINDS = ("obj", "ply", "glb")
RECIPES = ("full", "quickstart")


class Command(NamedTuple):
    """A subcommand."""

    summary: str
    # The first one runs unchanged after `make quickstart`.
    examples: tuple[str, ...]
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


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


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="images, videos, folders of them, or patterns in quotes",
    )
    add_image_options(parser)
    add("--camera", type=int, metavar="N", help="index of a camera, from 0")
    add(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="hand masks from any segmenter, for a better depth: FOLDER/NAME.png for NAME.jpg, of "
        "its size, one channel, non-zero on the hand; for several hands, the number of the hand "
        "from 1, in the order of the boxes; without boxes, they come from the masks",
    )
    add(
        "--out",
        type=Path,
        default=Path("hands"),
        metavar="FOLDER",
        help="folder for the results (default: hands)",
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
    from m3dhmr_jax.predict.predictor import HandMeshPredictor
    from m3dhmr_jax.predict.run import predict_files

    predict_files(
        lambda: HandMeshPredictor.from_checkpoint(options.checkpoint),
        parse_options(options),
        options.out,
    )


def add_bulk_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "images",
        metavar="IMAGES",
        help="a folder with subfolders, a file, or a pattern in quotes, on a disk that all "
        "machines share or in a bucket, such as s3://bucket/images",
    )
    add_image_options(parser)
    add(
        "--out",
        default="hands",
        metavar="FOLDER",
        help="folder for the Parquet files, on a disk or in a bucket (default: hands)",
    )
    add(
        "--workers",
        type=int,
        metavar="N",
        help="worker processes (default: one per core or, with --gpus, as many as fit)",
    )
    add(
        "--batch-size",
        type=int,
        default=256,
        metavar="N",
        help="images per Parquet file (default: 256)",
    )
    add(
        "--gpus",
        type=float,
        default=0.0,
        metavar="N",
        help="GPUs per worker, less than 1 to share one (default: 0)",
    )
    add(
        "--address",
        default=os.environ.get("RAY_ADDRESS", "local"),
        help="address of a Ray cluster (default: RAY_ADDRESS, else this machine alone)",
    )


def run_bulk(options: argparse.Namespace) -> None:
    import jax

    # This process only reads the weights; the accelerator's memory is for the workers.
    jax.config.update("jax_platforms", "cpu")
    from m3dhmr_jax.predict.bulk import predict_folder

    predict_folder(
        options.checkpoint,
        options.images,
        options.out,
        parse_image_options(options),
        workers=options.workers,
        batch_size=options.batch_size,
        gpus=options.gpus,
        address=options.address,
    )


def add_score_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--pred",
        type=Path,
        required=True,
        metavar="FILE",
        help="predictions as JSON: [xyz of all samples, vertices of all samples]",
    )
    add(
        "--gt",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="ground truth: the folder of evaluation_xyz.json and evaluation_verts.json",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the scores, in metres, to this .json file and, as the official script "
        "does, to a .txt file of the same name",
    )


def run_score(options: argparse.Namespace) -> None:
    from m3dhmr_jax.evaluate.official import read_predictions, read_truth, score, scores_text
    from m3dhmr_jax.evaluate.scoring import table, write_json

    if options.out is not None and options.out.suffix != ".json":
        raise UserError(f"--out {options.out} must end in .json")
    truth = read_truth(options.gt)
    result = score(read_predictions(options.pred, len(truth.joints_m)), truth)
    if options.out is not None:
        write_json(options.out, result)
        options.out.with_suffix(".txt").write_text(scores_text(result))
    print(table({options.pred.stem: result}))


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "file",
        type=Path,
        metavar="FILE",
        help="a .pth, .pt or .safetensors file of torchvision's ResNet-18 or ResNet-34, which "
        "becomes the initial encoder of a training, or of MobRecon, which becomes a network",
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the .safetensors file to write, for --config.init_from or --config.eval.checkpoint",
    )
    add(
        "--hierarchy",
        type=Path,
        metavar="FILE",
        help="the .npz file of the mesh hierarchy that MobRecon was trained with",
    )
    add("--prefix", default="", help="take only tensors whose names start with this prefix")


def run_convert(options: argparse.Namespace) -> None:
    from m3dhmr_jax.convert.run import convert_file

    for line in convert_file(options.file, options.out, options.hierarchy, options.prefix):
        print(line)


def add_synthesize_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="a new folder for the dataset")
    add("--train", type=int, default=32560, metavar="N", help="training hands (default: 32560)")
    add("--test", type=int, default=3960, metavar="N", help="evaluation hands (default: 3960)")
    add("--seed", type=int, default=0, help="same seed, same images (default: 0)")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: one per core)",
    )
    add(
        "--recipe",
        choices=RECIPES,
        default="full",
        help="the variety of scenes (default: full)",
    )
    add(
        "--backgrounds",
        type=int,
        choices=(1, 4),
        default=1,
        help="images per training hand, 4 as in FreiHAND (default: 1)",
    )
    add(
        "--hand",
        type=Path,
        metavar="FILE",
        help="MANO_RIGHT.pkl (default: the built-in hand)",
    )
    add(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="also write a contact sheet of the first 24 images; if the dataset is complete, only "
        "the sheet",
    )


def run_synthesize(options: argparse.Namespace) -> None:
    from m3dhmr_jax.hand import load_mano
    from m3dhmr_jax.synthetic import RECIPES, write_dataset
    from m3dhmr_jax.synthetic.contact_sheet import write_contact_sheet
    from m3dhmr_jax.synthetic.writer import is_finished

    if options.sheet is None or not is_finished(options.out):
        write_dataset(
            options.out,
            options.train,
            options.test,
            options.seed,
            options.workers,
            RECIPES[options.recipe],
            options.backgrounds,
            load_mano(options.hand) if options.hand else None,
        )
    if options.sheet is not None:
        write_contact_sheet(options.out, options.sheet)


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help="a folder in FreiHAND's official layout (default: download the official archives)",
    )
    add(
        "--out",
        type=Path,
        default=Path("data/tfds"),
        metavar="FOLDER",
        help="folder for prepared datasets (default: data/tfds)",
    )
    add(
        "--hand",
        type=Path,
        metavar="FILE",
        help="MANO_RIGHT.pkl, for releases without annotation files of vertices",
    )


def run_prepare(options: argparse.Namespace) -> None:
    from m3dhmr_jax.datasets import prepare_folder

    print(prepare_folder(options.folder, options.out, options.hand))


COMMANDS = {
    "predict": Command(
        "recovers hands in images, videos and cameras",
        (
            "m3dhmr predict --checkpoint runs/quickstart --freihand "
            "data/quickstart/evaluation/rgb/0000000*.jpg",
            "m3dhmr predict --checkpoint runs/quickstart --boxes boxes.csv --fov 70 my_images/",
            "m3dhmr predict --checkpoint runs/quickstart --masks my_masks/ my_images/",
            "m3dhmr predict --checkpoint runs/quickstart --camera 0 --smooth",
        ),
        add_predict_options,
        run_predict,
    ),
    "score": Command(
        "scores predictions in the format of the FreiHAND challenge",
        (
            "m3dhmr score --pred runs/quickstart/eval/pred.json --gt data/quickstart",
            "m3dhmr score --pred pred.json --gt data/FreiHAND_pub_v2 --out scores.json",
        ),
        add_score_options,
        run_score,
    ),
    "convert": Command(
        "converts public PyTorch weights to a weights file",
        (
            "curl -O https://download.pytorch.org/models/resnet18-f37072fd.pth && "
            "m3dhmr convert resnet18-f37072fd.pth --out weights/resnet18.safetensors",
            "m3dhmr convert mobrecon.pt --hierarchy mesh.npz --out weights/mobrecon.safetensors",
        ),
        add_convert_options,
        run_convert,
    ),
    "synthesize": Command(
        "renders a synthetic dataset in FreiHAND's layout",
        (
            "m3dhmr synthesize --out data/synthetic --train 200 --test 20",
            "m3dhmr synthesize --out data/synthetic --sheet sheet.jpg",
            "m3dhmr synthesize --out data/mano --hand MANO_RIGHT.pkl --backgrounds 4",
        ),
        add_synthesize_options,
        run_synthesize,
    ),
    "prepare": Command(
        "prepares a dataset in FreiHAND's layout for training, once",
        (
            "m3dhmr prepare data/quickstart",
            "m3dhmr prepare data/FreiHAND_pub_v2 --out data/tfds/freihand",
        ),
        add_prepare_options,
        run_prepare,
    ),
    "bulk": Command(
        'recovers hands in thousands of images with Ray (pip install "m3dhmr_jax[ray]")',
        (
            "m3dhmr bulk --checkpoint runs/quickstart --freihand --out bulk_hands "
            "data/quickstart/evaluation/rgb",
            "m3dhmr bulk --checkpoint /shared/runs/mine --gpus 1 --address auto "
            '--out s3://bucket/hands "s3://bucket/images/*.jpg"',
        ),
        add_bulk_options,
        run_bulk,
    ),
}


def make_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        f"m3dhmr {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog="examples:\n" + "".join(f"  {example}\n" for example in command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    return parser


def _make_top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {command.summary}\n" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "m3dhmr",
        usage="m3dhmr COMMAND ...",
        description="Monocular 3D hand mesh recovery in JAX.",
        epilog=f"commands:\n{''.join(lines)}\nm3dhmr COMMAND --help shows options and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exit codes as in `m3dhmr_jax.runtime.command_line`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        _make_top_parser().print_help(sys.stderr)
        sys.exit(2)
    name = _make_top_parser().parse_args(arguments[:1]).command
    # Positional arguments may stand between options, which subparsers of argparse do not support.
    options = make_parser(name).parse_intermixed_args(arguments[1:])
    from m3dhmr_jax.runtime.command_line import one_line_errors

    with one_line_errors():
        COMMANDS[name].run(options)


if __name__ == "__main__":
    main()
