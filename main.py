"""Trains and evaluates a network: `python main.py --config=configs/quickstart.py`."""

import re
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from m3dhmr_jax.evaluate.run import evaluate
from m3dhmr_jax.runtime import command_line, preemption, processes
from m3dhmr_jax.runtime.files import explain_disk_full, user_path
from m3dhmr_jax.training.train import train

MODES = ("train_and_evaluate", "train", "evaluate")
CONFIG = config_flags.DEFINE_config_file("config", help_string="A file in configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; default: runs/<config's name>.")
MODE = flags.DEFINE_enum("mode", MODES[0], MODES, "What to do.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, if there are several; default: from SLURM etc."
)
PROCESSES = flags.DEFINE_integer("processes", None, "The number of processes.")
PROCESS = flags.DEFINE_integer("process", None, "The index of this process, from 0 on.")


def run_name(config_file: str) -> str:
    """A folder name for a config: configs/ablation.py:roi=false gives ablation-roi-false."""
    path, _, variant = config_file.partition(":")
    return re.sub(r"\W+", "-", f"{Path(path).stem}-{variant}").strip("-")


def main(_: list[str]) -> None:
    name = run_name(config_flags.get_config_filename(flags.FLAGS["config"]))
    if not flags.FLAGS["verbosity"].present:  # Libraries log every file.
        logging.set_verbosity(logging.WARNING)
    preemption.install_sigterm_handler()
    with command_line.one_line_errors():
        workdir = user_path(WORKDIR.value or f"runs/{name}")
        with explain_disk_full(workdir):
            processes.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
            if MODE.value != "evaluate":
                train(CONFIG.value, workdir)
            if MODE.value != "train":
                evaluate(CONFIG.value, workdir)
            processes.barrier("the end")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=command_line.parse_flags)
