"""Trains and evaluates a network: `python main.py --config=configs/quickstart.py`."""

import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from m3dhmr_jax.evaluate.run import evaluate
from m3dhmr_jax.runtime import preemption, processes
from m3dhmr_jax.runtime.files import explain_disk_full
from m3dhmr_jax.training.train import train

MODES = ("train_and_evaluate", "train", "evaluate")
CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; runs/<config's name> if none.")
MODE = flags.DEFINE_enum("mode", "train_and_evaluate", MODES, "What to do.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "One run in several processes: host:port of the first. SLURM etc. know."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many there are.")
PROCESS = flags.DEFINE_integer("process", None, "Which of them this one is, from 0 on.")


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses the flags; stops in one line at a flag or field that does not exist."""
    flags.FLAGS.set_gnu_getopt(True)
    try:
        rest = flags.FLAGS(arguments, known_only=True)
        if rest[1:]:
            raise flags.Error(f"Unknown argument {' '.join(rest[1:])}")
    except flags.Error as error:
        first, *more = str(error).strip().splitlines()
        # What a config file refuses is the last line of a traceback.
        place = first.removesuffix(" Error whilst parsing config file:")
        sys.exit(
            f"Error: {place} {more[-1].removeprefix('ValueError: ')}" if more else f"Error: {first}"
        )
    except (AttributeError, KeyError, TypeError) as error:
        given = ", ".join(a for a in arguments if a.lstrip("-").startswith("config."))
        sys.exit(f"Error: unknown config field in {given}: {error}; see configs/resnet18.py")
    except OSError as error:
        sys.exit(f"Error: {error}")
    return rest


def run_name(config_file: str) -> str:
    """A folder's name for a config: configs/ablation.py:roi=false gives ablation-roi-false."""
    path, _, variant = config_file.partition(":")
    return re.sub(r"\W+", "-", f"{Path(path).stem}-{variant}").strip("-")


def main(arguments: list[str]) -> None:
    preemption.install_sigterm_handler()
    try:
        run(arguments)
    except (ValueError, OSError, FloatingPointError) as error:
        logging.debug("", exc_info=True)
        sys.exit(f"Error: {error}")
    except preemption.Preempted as stop:
        print(f"Preempted {stop}", file=sys.stderr)
        sys.exit(preemption.EXIT_CODE)


def run(arguments: list[str]) -> None:
    config = CONFIG.value
    name = run_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    workdir = Path(WORKDIR.value or f"runs/{name}")
    if not flags.FLAGS["verbosity"].present:  # Libraries under this program tell of every file.
        logging.set_verbosity(logging.WARNING)
    with explain_disk_full(workdir):
        processes.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        if MODE.value != "evaluate":
            train(config, workdir)
        if MODE.value != "train":
            evaluate(config, workdir)
        processes.barrier("the end")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
