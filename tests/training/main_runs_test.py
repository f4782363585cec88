"""Complete runs of main.py: interrupted, resumed, and rejected."""

import json
import re
import shutil
import signal

import numpy as np
import pytest

from tests.faults import is_stopped, wait_until
from tests.workdirs import meta, steps_in

pytestmark = pytest.mark.long

STEPS = 24

KILL_IN_STEP_15 = """
import os, runpy, signal
from m3dhmr_jax.training.logger import TrainLogger

log_step = TrainLogger.step

def step(self, step, terms):
    if step == 15:
        self._checkpoints.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    log_step(self, step, terms)

TrainLogger.step = step
runpy.run_path("main.py", run_name="__main__")
"""


def failed(result, code, *words):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    return True


def kill_during_a_save(process, checkpoints):
    """Stops it when it writes a checkpoint; kills it if it was still writing."""
    while True:
        wait_until(lambda: list(checkpoints.glob("*.orbax-checkpoint-tmp")), process)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(process.pid), process)
        if list(checkpoints.glob("*.orbax-checkpoint-tmp")):
            break
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def interrupted(run_main, tmp_path_factory):
    """A run that was killed while it saved, and again in step 15, after it saved step 12."""
    workdir = tmp_path_factory.mktemp("interrupted")
    kill_during_a_save(run_main.start(workdir, "--mode=train"), workdir / "checkpoints")
    assert list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))
    result = run_main(workdir, "--mode=train", code=KILL_IN_STEP_15)
    assert result.returncode == -signal.SIGKILL, result.stderr
    return workdir


@pytest.fixture
def copy_of(tmp_path):
    return lambda workdir: shutil.copytree(workdir, tmp_path / "copy")


def test_run_prints_network_and_progress_and_writes_checkpoints_and_events(trained):
    workdir, result = trained
    assert "backbone/stem/conv1/conv/kernel" in result.stdout
    assert f"step {STEPS}: pa_mpjpe_mm" in result.stdout + result.stderr
    assert "img/s" in result.stderr
    assert steps_in(workdir)[-1] == STEPS
    assert any((workdir / "events").iterdir())
    assert "mean hand" in result.stdout


def test_killed_run_ends_with_the_bits_of_an_uninterrupted_one(
    run_main, trained, interrupted, copy_of
):
    """The digest covers parameters, statistics, moments and step."""
    assert steps_in(interrupted)[-1] == 12
    workdir = copy_of(interrupted)
    result = run_main(workdir, "--mode=train")
    assert result.returncode == 0, result.stderr
    assert "Resuming from step 12" in result.stdout
    assert meta(workdir, STEPS)["sha256"] == meta(trained[0], STEPS)["sha256"]
    assert meta(workdir, STEPS)["scores"] == meta(trained[0], STEPS)["scores"]


def test_run_resumes_from_the_checkpoint_before_a_corrupted_one(
    run_main, trained, interrupted, copy_of
):
    workdir = copy_of(interrupted)
    newest = workdir / "checkpoints" / str(STEPS)
    shutil.copytree(trained[0] / "checkpoints" / str(STEPS), newest)
    arrays = [path for path in newest.rglob("d/*") if path.is_file()]
    largest = max(arrays, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    result = run_main(workdir, "--mode=train")
    assert result.returncode == 0, result.stderr
    assert f"{workdir / 'checkpoints'}" in result.stderr
    assert "12 steps are lost" in result.stderr
    assert meta(workdir, STEPS)["sha256"] == meta(trained[0], STEPS)["sha256"]


@pytest.fixture
def absurd_labels(run_main, trained, tmp_path):
    """Flags for images of which one has labels so large that its loss is infinite."""
    folder = shutil.copytree(run_main.data / "images", tmp_path / "images")
    path = folder / "training_verts.json"
    verts_m = json.loads(path.read_text())
    verts_m[5] = [[3e38, 0.0, 0.5]] * 778  # Finite, as the files must be; float32 ends at 3.4e38.
    path.write_text(json.dumps(verts_m))
    return (
        "--mode=train",
        f"--config.data.source.folder={folder}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
    )


def test_run_stops_at_an_infinite_loss_or_skips_its_batch(
    run_main, interrupted, absurd_labels, copy_of
):
    workdir = copy_of(interrupted)
    result = run_main(workdir, *absurd_labels)
    assert failed(result, 1, "a loss term is not finite", "learning_rate")
    assert re.search(r"Error: step 1[345]: a loss", result.stderr)
    assert f"the last good checkpoint is step 12 in {workdir / 'checkpoints'}" in result.stderr
    assert steps_in(workdir)[-1] == 12

    result = run_main(workdir, *absurd_labels, "--config.optim.skip_nonfinite=True")
    assert result.returncode == 0, result.stderr
    assert "Resuming from step 12" in result.stdout
    assert "4 batches were not finite and were skipped" in result.stderr  # Of epochs 5 to 8.
    assert steps_in(workdir)[-1] == STEPS


def test_run_rejects_a_checkpoint_of_another_network(run_main, trained):
    file = trained[0] / "config.json"
    before = file.read_text()
    result = run_main(trained[0], "--config.model.roi_dilation=1")
    assert failed(result, 2, "model.roi_dilation is 2 there and 1")
    assert file.read_text() == before


def test_run_rejects_an_unreadable_image_or_skips_it(run_main, trained, tmp_path):
    folder = shutil.copytree(run_main.data / "images", tmp_path / "images")
    (folder / "training/rgb/00000003.jpg").write_bytes(b"no photo")
    here = (
        f"--config.data.source.folder={folder}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
        "--mode=train",
        "--config.epochs=1.0",
    )
    result = run_main(tmp_path / "run", *here)
    assert failed(result, 2, "training/rgb/00000003.jpg")
    result = run_main(tmp_path / "run", *here, "--config.data.loader.skip_unreadable=True")
    assert result.returncode == 0, result.stderr
    assert "1 images could not be read and were skipped" in result.stderr


def test_run_rejects_a_dataset_of_another_hand(run_main, trained, tmp_path):
    folder = shutil.copytree(run_main.data / "images", tmp_path / "images")
    path = folder / "evaluation_verts.json"
    verts = np.array(json.loads(path.read_text()))
    path.write_text(json.dumps(verts[:, ::-1].tolist()))
    result = run_main(
        tmp_path / "run",
        f"--config.data.source.folder={folder}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
    )
    assert failed(result, 2, str(tmp_path / "prepared"), "config.hand=")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.model.widht=4"], ["unknown config field", "--config.model.widht=4"]),
        (["--config.model.image_size=100"], ["model.image_size=100"]),
        (["--config.batch_size=13"], ["batch_size=13"]),
        (["--config.loss.weights.edge=-1.0"], ["loss.weights.edge=-1.0"]),
        (
            [
                "--config.data.source.folder=nowhere/at/all",
                "--config.data.source.prepared=nowhere",
                "--config.data.source.synthetic_train=0",
            ],
            ["data.source.folder=nowhere/at/all"],
        ),
        (["--mode=evaluate"], ["no checkpoint here"]),
        (["--config=configs/none.py"], ["configs/none.py"]),
        (["--config.init_from=nowhere/at/all"], ["nowhere/at/all"]),
    ],
)
def test_run_rejects_bad_input_and_trains_nothing(run_main, trained, tmp_path, flags, words):
    assert failed(run_main(tmp_path / "run", *flags), 2, *words)
    assert not list((tmp_path / "run").rglob("checkpoints/[0-9]*"))
