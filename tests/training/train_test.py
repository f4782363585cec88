import json
import re
import shutil
import signal

import numpy as np
import pytest

from m3dhmr_jax.training.train import Schedule
from tests.faults import is_stopped, wait_until

STEPS = 24

KILLED = """
import os, runpy, signal
from m3dhmr_jax import log

def killed_in_step(at):
    go_on = log.Log.step

    def step(self, step, terms):
        if step == at:
            self._checkpoints.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        go_on(self, step, terms)

    log.Log.step = step

killed_in_step(15)
runpy.run_path("main.py", run_name="__main__")
"""


def meta(workdir, step):
    return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())


def steps_in(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def refused(result, *words):
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    return True


def kill_while_it_saves(process, checkpoints):
    """Halts it when it writes a checkpoint; kills it if that is still so then."""
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
    kill_while_it_saves(run_main.start(workdir, "--mode=train"), workdir / "checkpoints")
    assert list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))
    result = run_main(workdir, "--mode=train", code=KILLED)
    assert result.returncode == -signal.SIGKILL, result.stderr
    return workdir


@pytest.fixture
def copy_of(tmp_path):
    return lambda workdir: shutil.copytree(workdir, tmp_path / "copy")


def test_a_run_shows_its_network_and_progress_and_leaves_checkpoints_and_events(trained):
    workdir, result = trained
    assert "backbone/stem/conv1/conv/kernel" in result.stdout
    assert f"step {STEPS}: pa_mpjpe_mm" in result.stdout + result.stderr
    assert "img/s" in result.stderr
    assert steps_in(workdir)[-1] == STEPS
    assert any((workdir / "events").iterdir())
    assert "mean hand" in result.stdout


def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(
    run_main, trained, interrupted, copy_of
):
    """The digest covers parameters, statistics, moments, running mean and step."""
    assert steps_in(interrupted)[-1] == 12
    workdir = copy_of(interrupted)
    result = run_main(workdir, "--mode=train")
    assert result.returncode == 0, result.stderr
    assert "Going on from step 12" in result.stdout
    assert meta(workdir, STEPS)["sha256"] == meta(trained[0], STEPS)["sha256"]
    assert meta(workdir, STEPS)["scores"] == meta(trained[0], STEPS)["scores"]


def test_a_run_with_a_damaged_newest_checkpoint_says_what_is_lost_and_goes_on(
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
    assert f"Checkpoint {STEPS} in {workdir / 'checkpoints'} is corrupted" in result.stderr
    assert "Resuming from step 12; 12 steps are lost" in result.stderr
    assert meta(workdir, STEPS)["sha256"] == meta(trained[0], STEPS)["sha256"]


@pytest.fixture
def one_absurd_hand(run_main, trained, tmp_path):
    """Flags for photos of which one has labels so large that its loss is infinite."""
    folder = shutil.copytree(run_main.data / "photos", tmp_path / "photos")
    path = folder / "training_verts.json"
    verts_m = json.loads(path.read_text())
    verts_m[5] = [[3e38, 0.0, 0.5]] * 778  # Finite, as the files must be; float32 ends at 3.4e38.
    path.write_text(json.dumps(verts_m))
    return (
        "--mode=train",
        f"--config.data.source.folder={folder}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
    )


@pytest.mark.long
def test_a_loss_that_is_not_finite_stops_the_run_or_its_batch_is_skipped(
    run_main, interrupted, one_absurd_hand, copy_of
):
    workdir = copy_of(interrupted)
    result = run_main(workdir, *one_absurd_hand)
    assert refused(result, "a loss term is not finite", "learning_rate")
    assert re.search(r"Error: step 1[345]: a loss", result.stderr)
    assert f"the last good checkpoint is step 12 in {workdir / 'checkpoints'}" in result.stderr
    assert steps_in(workdir)[-1] == 12

    result = run_main(workdir, *one_absurd_hand, "--config.optim.skip_nonfinite=True")
    assert result.returncode == 0, result.stderr
    assert "Going on from step 12" in result.stdout
    assert "4 batches were not finite and were skipped" in result.stderr  # Of epochs 5 to 8.
    assert steps_in(workdir)[-1] == STEPS


def test_a_checkpoint_of_another_network_is_refused_with_what_differs(run_main, trained):
    file = trained[0] / "config.json"
    before = file.read_text()
    result = run_main(trained[0], "--config.model.roi_dilation=1")
    assert refused(result, "belongs to another network", "model.roi_dilation is 2 there and 1")
    assert file.read_text() == before


def test_an_unreadable_photo_stops_the_run_unless_it_may_be_skipped(run_main, trained, tmp_path):
    folder = shutil.copytree(run_main.data / "photos", tmp_path / "photos")
    (folder / "training/rgb/00000003.jpg").write_bytes(b"no photo")
    here = (
        f"--config.data.source.folder={folder}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
        "--mode=train",
        "--config.epochs=1.0",
    )
    result = run_main(tmp_path / "run", *here)
    assert refused(result, "training/rgb/00000003.jpg", "not a readable JPEG")
    result = run_main(tmp_path / "run", *here, "--config.data.loader.skip_unreadable=True")
    assert result.returncode == 0, result.stderr
    assert "1 photos could not be read and were skipped" in result.stderr


def test_a_dataset_of_another_hand_is_refused(run_main, trained, tmp_path):
    folder = shutil.copytree(run_main.data / "photos", tmp_path / "photos")
    path = folder / "evaluation_verts.json"
    verts = np.array(json.loads(path.read_text()))
    path.write_text(json.dumps(verts[:, ::-1].tolist()))
    result = run_main(
        tmp_path / "run",
        f"--config.data.source.folder={folder}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
    )
    assert refused(result, str(tmp_path / "prepared"), "numbered as another hand's", "config.hand=")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.model.widht=4"], ["unknown config field", "--config.model.widht=4"]),
        (["--config.model.image_size=100"], ["model.image_size=100", "multiple of 32"]),
        (["--config.batch_size=13"], ["batch_size=13", "larger than the training set of 12"]),
        (["--config.loss.weights.edge=-1.0"], ["loss.weights.edge=-1.0"]),
        (
            [
                "--config.data.source.folder=nowhere/at/all",
                "--config.data.source.prepared=nowhere",
                "--config.data.source.synthetic_train=0",
            ],
            ["data.source.folder=nowhere/at/all", "no such folder", "unpack FreiHAND"],
        ),
        (["--mode=evaluate"], ["no checkpoint here", "train with the same"]),
        (["--config=configs/none.py"], ["configs/none.py", "No such file"]),
    ],
)
def test_bad_input_is_named_and_nothing_is_trained(run_main, trained, tmp_path, flags, words):
    assert refused(run_main(tmp_path / "run", *flags), *words)
    assert not list((tmp_path / "run").rglob("checkpoints/[0-9]*"))


@pytest.mark.parametrize("field", ["epochs", "checkpoint_every_epochs", "eval.every_epochs"])
def test_spans_of_no_length_are_refused(tiny_config, field):
    with pytest.raises(ValueError, match=f"{field}=0.0 must be positive"):
        Schedule.of(tiny_config(**{field: 0.0}), 24)


def test_a_schedule_counts_in_steps(tiny_config):
    config = tiny_config(
        **{
            "batch_size": 5,
            "epochs": 4.0,
            "checkpoint_every_epochs": 1.5,
            "eval.every_epochs": 3.0,
        }
    )
    schedule = Schedule.of(config, 24)  # Four whole batches an epoch.
    assert (schedule.steps, schedule.steps_per_epoch) == (16, 4)
    assert [s for s in range(1, 17) if schedule.saves(s)] == [6, 12, 16]
    assert [s for s in range(1, 17) if schedule.evaluates(s)] == [12, 16]
