"""The same run on one device, on four, and in two processes of two devices each."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from m3dhmr_jax.checkpoints.restore import read_run
from tests.workdirs import steps_in

pytestmark = pytest.mark.long

PRETRAIN = "pretrain2d.py:network=quickstart"  # Compiles in a fraction of the mesh network's time.
LONG = tuple(
    f"--config.{name}=9999.0" for name in ("epochs", "checkpoint_every_epochs", "eval.every_epochs")
)
STEPS_PER_EPOCH = 3

STEPS = """
import sys
from pathlib import Path
import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh
from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.checkpoints.weights import flatten
from m3dhmr_jax.data import loader
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.training.step import init_state
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.training.step import create_step
from tests.conftest import TINY
from configs import quickstart

config = quickstart.get_config()
config.update_from_flattened_dict(TINY)
# An untrained mesh is almost a point: rounding decides its edges and normals.
config.loss.weights.update(edge=0.0, normal=0.0)
task = create_task(config, load_hand(config))
# Adam's first step is as large for a gradient of rounding errors as for any other.
optimizer = optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(1e-2))
batch = next(loader.train_batches(Path(sys.argv[1]), 4, 0))
for n in (1, 4):
    mesh = Mesh(np.array(jax.devices()[:n]), (sharding.AXIS,), axis_types=(AxisType.Auto,))
    state = init_state(task.network.params, task.network.stats, optimizer, 0.99)
    state = sharding.replicate(state, mesh)
    step = create_step(config, task, optimizer, Schedule(9, 3, 3, 3), mesh)
    state, _ = step(state, sharding.shard(batch, mesh), jax.random.key(0))
    np.savez(f"{sys.argv[2]}/{n}.npz", **flatten({"params": state.params, "stats": state.stats}))
"""

SIGTERM_TO_PROCESS_1 = """
import os, runpy, signal, sys
from m3dhmr_jax.training.logger import TrainLogger

log_step = TrainLogger.step

def step(self, step, terms):
    if step == 2 and "--process=1" in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
    log_step(self, step, terms)

TrainLogger.step = step
runpy.run_path("main.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def interrupted(run_main, in_two_processes, tmp_path_factory):
    """A function that starts a run in two processes, and the results of a start in which process 1
    got SIGTERM.
    """
    workdir = tmp_path_factory.mktemp("together")

    def start_both(*flags, code=None):
        def start(index, coordinator, environment):
            own = (f"--coordinator={coordinator}", "--processes=2", f"--process={index}")
            return run_main(
                workdir, *LONG, *flags, *own, config=PRETRAIN, code=code, environment=environment
            )

        return workdir, in_two_processes(start)

    return start_both, start_both(code=SIGTERM_TO_PROCESS_1)


@pytest.fixture(scope="module")
def saved_step(interrupted):
    _, (workdir, _) = interrupted
    (step,) = steps_in(workdir)
    return step


@pytest.fixture(scope="module")
def together(interrupted, saved_step):
    """That run, resumed for one more epoch: its workdir and results."""
    start_both, _ = interrupted
    return start_both(f"--config.epochs={saved_step / STEPS_PER_EPOCH + 1}")


@pytest.fixture(scope="module")
def alone(run_main, saved_step, tmp_path_factory):
    """The workdir of an uninterrupted run of one process with one device."""
    workdir = tmp_path_factory.mktemp("alone")
    epochs = f"--config.epochs={saved_step / STEPS_PER_EPOCH + 1}"
    result = run_main(workdir, *LONG, epochs, config=PRETRAIN)
    assert result.returncode == 0, result.stderr
    return workdir


def test_train_step_is_the_same_on_four_devices(run_main, trained, tmp_path):
    (dataset_dir,) = (run_main.data / "prepared").glob("freihand/*")
    run = subprocess.run(
        [sys.executable, "-c", STEPS, dataset_dir, tmp_path],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    one, four = (np.load(tmp_path / f"{n}.npz") for n in (1, 4))
    for name in one:
        np.testing.assert_allclose(four[name], one[name], rtol=0, atol=1e-5, err_msg=name)


def test_sigterm_stops_all_processes_after_same_step(interrupted, saved_step):
    _, (_, results) = interrupted
    for result in results:
        assert result.returncode == 128 + signal.SIGTERM, result.stderr
        assert f"Preempted by SIGTERM after step {saved_step} of" in result.stderr


def test_resumed_run_of_two_processes_matches_single_process(together, alone, saved_step):
    """Not bit by bit: sums over four devices have another order, and where a gradient is nearly 0,
    Adam turns that rounding into up to a learning rate, in single elements.
    """
    workdir, resumed = together
    for result in resumed:
        assert result.returncode == 0, result.stderr
    assert f"Resuming from step {saved_step}" in resumed[0].stdout
    last = saved_step + STEPS_PER_EPOCH
    assert f"step {last}: landmark_error_px" in resumed[0].stdout + resumed[0].stderr
    assert resumed[1].stdout.count("step") == 0
    assert steps_in(workdir)[-1] == steps_in(alone)[-1] == last
    for kind in ("params", "stats"):
        ours, theirs = (
            np.concatenate([x.ravel() for _, x in sorted(getattr(read_run(run), kind).items())])
            for run in (workdir, alone)
        )
        assert np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(theirs)


def test_scores_of_two_processes_match_single_process(together, alone):
    """Six test images on four devices."""
    ours, theirs = (
        json.loads((workdir / "eval" / "scores.json").read_text())
        for workdir in (together[0], alone)
    )
    assert ours["step"] == theirs["step"]
    for row in ("model", "mean_landmarks"):
        for name, value in theirs[row].items():
            np.testing.assert_allclose(ours[row][name], value, rtol=1e-3, err_msg=name)
