"""`m3dhmr convert`: runs and other networks' weights to weights files."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import user_path

DETECTOR = "detector"


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "file",
        type=user_path,
        metavar="FILE",
        help="a .pth, .pt or .safetensors file of torchvision's ResNet-18 or ResNet-34, which "
        "becomes the initial encoder of a training, or of MobRecon, which becomes a network; or "
        "the folder of a run, whose newest valid checkpoint becomes one file with its config; or "
        f"{DETECTOR}, the installed hand detector, whose landmark network becomes the initial "
        "blocks of the backbone mobilenet",
    )
    add(
        "--out",
        type=user_path,
        required=True,
        metavar="FILE",
        help="the .safetensors file to write, for --config.init_from or --config.eval.checkpoint",
    )
    add(
        "--hierarchy",
        type=user_path,
        metavar="FILE",
        help="the .npz file of the mesh hierarchy that MobRecon was trained with",
    )
    add("--prefix", default="", help="take only tensors whose names start with this prefix")
    add(
        "--half",
        action="store_true",
        help="of a run: store parameters in half precision, in half the space",
    )


def run_convert(options: argparse.Namespace) -> None:
    from m3dhmr_jax.convert.from_detector import write_detector_blocks
    from m3dhmr_jax.convert.from_run import write_run
    from m3dhmr_jax.convert.run import convert_file
    from m3dhmr_jax.predict.detector_weights import load_detector_weights

    is_run, is_detector = options.file.is_dir(), str(options.file) == DETECTOR
    if (is_run or is_detector) and (options.hierarchy or options.prefix):
        raise UserError(
            f"--hierarchy and --prefix are for PyTorch files; {options.file} is "
            f"{'a run' if is_run else 'the hand detector'}"
        )
    if options.half and not is_run:
        raise UserError(f"--half is for the folder of a run, and {options.file} is none")
    if is_run:
        lines = write_run(options.file, options.out, half=options.half)
    elif is_detector:
        lines = write_detector_blocks(load_detector_weights(), options.out)
    else:
        lines = convert_file(options.file, options.out, options.hierarchy, options.prefix)
    for line in lines:
        print(line)


COMMAND = Command(
    "converts a run, or the weights of other networks, to a weights file",
    (
        "curl -O https://download.pytorch.org/models/resnet18-f37072fd.pth && "
        "m3dhmr convert resnet18-f37072fd.pth --out weights/resnet18.safetensors",
        "m3dhmr convert mobrecon.pt --hierarchy mesh.npz --out weights/mobrecon.safetensors",
        "m3dhmr convert detector --out data/hand_blocks.safetensors",
        "m3dhmr convert runs/mine --half --out weights/mine.safetensors",
    ),
    add_convert_options,
    run_convert,
)
