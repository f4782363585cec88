"""`m3dhmr bulk`: hands in thousands of images."""

import argparse
import os

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.commands.image_options import add_image_options, parse_image_options


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
        options.hand,
        options.method,
        options.images,
        options.out,
        parse_image_options(options),
        runtime=options.runtime,
        workers=options.workers,
        batch_size=options.batch_size,
        gpus=options.gpus,
        address=options.address,
    )


COMMAND = Command(
    'recovers hands in thousands of images with Ray (pip install "m3dhmr_jax[ray]")',
    (
        "m3dhmr bulk --checkpoint runs/quickstart --freihand --out bulk_hands "
        "data/quickstart/evaluation/rgb",
        "m3dhmr bulk --checkpoint /shared/runs/mine --gpus 1 --address auto "
        '--out s3://bucket/hands "s3://bucket/images/*.jpg"',
    ),
    add_bulk_options,
    run_bulk,
)
