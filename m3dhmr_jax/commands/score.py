"""`m3dhmr score`: scores of a prediction file."""

import argparse

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.runtime.files import user_path


def add_score_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--pred",
        type=user_path,
        required=True,
        metavar="FILE",
        help="predictions as JSON, [xyz of all samples, vertices of all samples], or a .zip of it",
    )
    add(
        "--gt",
        type=user_path,
        required=True,
        metavar="FOLDER",
        help="ground truth: the folder of evaluation_xyz.json and evaluation_verts.json",
    )
    add(
        "--out",
        type=user_path,
        metavar="FILE",
        help="also write the scores, in metres, to this .json file and, as the official script "
        "does, to a .txt file of the same name",
    )


def run_score(options: argparse.Namespace) -> None:
    from m3dhmr_jax.evaluate.official import read_predictions, read_truth, score, write_scores
    from m3dhmr_jax.evaluate.scoring import table

    truth = read_truth(options.gt)
    result = score(read_predictions(options.pred, len(truth.joints_m)), truth)
    if options.out is not None:
        write_scores(options.out, result)
    print(table({options.pred.stem: result}))


COMMAND = Command(
    "scores predictions in the format of the FreiHAND challenge",
    (
        "m3dhmr score --pred runs/quickstart/eval/pred.json --gt data/quickstart",
        "m3dhmr score --pred pred.json --gt data/FreiHAND_pub_v2 --out scores.json",
    ),
    add_score_options,
    run_score,
)
