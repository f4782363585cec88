"""`m3dhmr convert`: public PyTorch weights."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "file",
        type=user_path,
        metavar="FILE",
        help="a .pth, .pt or .safetensors file of torchvision's ResNet-18 or ResNet-34, which "
        "becomes the initial encoder of a training, or of MobRecon, which becomes a network",
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


def run_convert(options: argparse.Namespace) -> None:
    from m3dhmr_jax.convert.run import convert_file

    for line in convert_file(options.file, options.out, options.hierarchy, options.prefix):
        print(line)


COMMAND = Command(
    "converts public PyTorch weights to a weights file",
    (
        "curl -O https://download.pytorch.org/models/resnet18-f37072fd.pth && "
        "m3dhmr convert resnet18-f37072fd.pth --out weights/resnet18.safetensors",
        "m3dhmr convert mobrecon.pt --hierarchy mesh.npz --out weights/mobrecon.safetensors",
    ),
    add_convert_options,
    run_convert,
)
