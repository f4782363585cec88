"""`python -m m3dhmr_jax.synthetic --out DIR --train N --test N --seed S --workers W`."""

import argparse
import os
import sys
from pathlib import Path

from m3dhmr_jax.hand import load_mano
from m3dhmr_jax.synthetic import RECIPES, write_dataset


def parse(arguments: list[str]) -> argparse.Namespace:
    """Command line options."""
    parser = argparse.ArgumentParser("python -m m3dhmr_jax.synthetic", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the dataset")
    parser.add_argument("--train", type=int, default=32560, help="training hands")
    parser.add_argument("--test", type=int, default=3960, help="evaluation hands")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--recipe", choices=RECIPES, default="full")
    parser.add_argument("--backgrounds", type=int, default=1, help="1, or 4 as FreiHAND has")
    parser.add_argument("--hand", type=Path, help="MANO_RIGHT.pkl; the built-in hand if none")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Renders a dataset; 2 if the request was refused."""
    options = parse(arguments)
    try:
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
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
