"""`python -m m3dhmr_jax.evaluate --pred pred.json --gt FOLDER --out scores.json`."""

import argparse
import sys
from pathlib import Path

from m3dhmr_jax.evaluate.official import read_predictions, read_truth, score, scores_text
from m3dhmr_jax.evaluate.scoring import table, write_json


def parse(arguments: list[str]) -> argparse.Namespace:
    """Command line options."""
    parser = argparse.ArgumentParser(
        "python -m m3dhmr_jax.evaluate",
        description="Scores a FreiHAND challenge entry as the official script does.",
    )
    parser.add_argument("--pred", type=Path, required=True, help="[xyz, verts] of all samples")
    parser.add_argument(
        "--gt",
        type=Path,
        required=True,
        help="folder of evaluation_xyz.json, evaluation_verts.json",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="scores in metres; the official .txt goes beside it"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Scores a file; 2 if it was refused, and then nothing is written."""
    options = parse(arguments)
    try:
        if options.out.suffix != ".json":
            raise ValueError(f"--out {options.out} must end in .json; a .txt goes beside it")
        truth = read_truth(options.gt)
        result = score(read_predictions(options.pred, len(truth.joints_m)), truth)
        write_json(options.out, result)
        options.out.with_suffix(".txt").write_text(scores_text(result))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table({options.pred.stem: result}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
