"""`python -m m3dhmr_jax.predict --checkpoint runs/quickstart my_photos/ my_video.mp4`."""

import sys
from pathlib import Path

from m3dhmr_jax.predict.command import make_parser, run_command
from m3dhmr_jax.predict.predictor import HandMeshPredictor


def main(arguments: list[str]) -> int:
    """Predicts with a run's newest checkpoint, or a weights file."""
    parser = make_parser("python -m m3dhmr_jax.predict", Path("hands"))
    parser.add_argument("--checkpoint", required=True, help="workdir of a run, or a weights file")
    options = parser.parse_intermixed_args(arguments)
    return run_command(options, lambda: HandMeshPredictor.from_checkpoint(options.checkpoint))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
