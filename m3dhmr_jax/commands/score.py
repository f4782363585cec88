"""`m3dhmr score`: scores of a prediction file."""

import argparse
from pathlib import Path

from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.errors import UserError


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


COMMAND = Command(
    "scores predictions in the format of the FreiHAND challenge",
    (
        "m3dhmr score --pred runs/quickstart/eval/pred.json --gt data/quickstart",
        "m3dhmr score --pred pred.json --gt data/FreiHAND_pub_v2 --out scores.json",
    ),
    add_score_options,
    run_score,
)
