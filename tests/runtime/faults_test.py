"""Runs of main.py with real faults: what is kept, what is logged, and the resulting bits."""

import os
import signal

import pytest

from tests.faults import ignores_sigterm, small_disk, wait_for_end, wait_until, workers_of
from tests.workdirs import meta, steps_in

pytestmark = pytest.mark.long

STEPS, SAVED_EVERY = 24, 6
SLOW = "--config.eval.every_epochs=0.34"  # Evaluates after each step: no race with the test.


def space_of(folder):
    """Disk space in use, in complete pages."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in files)


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def test_run_survives_killed_worker_and_sigterm(run_main, trained, workdir):
    """A worker is killed, then all processes get SIGTERM; a second start finishes the run."""
    process = run_main.start(workdir, "--mode=train", "--config.data.loader.workers=1", SLOW)
    wait_until(lambda: steps_in(workdir), process)
    for worker in workers_of(process):
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "Restarting the loader at step" in process.output.read_text(), process)
    wait_until(lambda: any(map(ignores_sigterm, workers_of(process))), process)
    workers = workers_of(process)
    for pid in (*workers, process.pid):
        os.kill(pid, signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    wait_for_end(workers)
    step, output = steps_in(workdir)[-1], process.output.read_text()
    assert step < STEPS
    stopped = f"Preempted by SIGTERM after step {step} of {STEPS}, which is saved in {workdir}"
    assert stopped in output
    assert "Traceback" not in output
    result = run_main(workdir, "--mode=train")
    assert f"Resuming from step {step}" in result.stdout
    assert meta(workdir, STEPS)["sha256"] == meta(trained[0], STEPS)["sha256"]


def test_sigterm_while_rendering_ends_all_processes(run_main, tmp_path, workdir):
    process = run_main.start(
        workdir,
        f"--config.data.source.folder={tmp_path / 'images'}",
        f"--config.data.source.prepared={tmp_path / 'prepared'}",
        "--config.data.source.synthetic_train=5000",
    )
    wait_until((tmp_path / "images/training/rgb/00000001.jpg").exists, process)
    workers = workers_of(process)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    output = process.output.read_text()
    assert "Preempted by SIGTERM; incomplete files" in output
    assert "Traceback" not in output
    assert workers
    wait_for_end(workers)


def test_run_resumes_after_full_disk(run_main, trained, workdir):
    """There is room for one checkpoint, but not for the next one next to it."""
    with small_disk(workdir, 50 * space_of(trained[0])) as resize:
        process = run_main.start(workdir, "--mode=train", SLOW)
        wait_until(lambda: steps_in(workdir), process)
        process.terminate()
        process.wait()
        newest = steps_in(workdir)[-1]
        # The same state takes a third more in one checkpoint than in another.
        resize(space_of(workdir) + space_of(workdir / "checkpoints" / str(newest)) // 2)
        result = run_main(workdir, "--mode=train")
        assert result.returncode == 1
        # Not checked further: TensorStore's threads may print errors before or after.
        following = (newest // SAVED_EVERY + 1) * SAVED_EVERY
        assert (
            f"Error: {workdir / 'checkpoints'}: the checkpoint of step {following} could not be "
            f"written (No space left on device); the newest is that of step {newest}"
        ) in result.stderr
        assert steps_in(workdir)[-1] == newest
        resize(50 * space_of(trained[0]))
        result = run_main(workdir, "--mode=train")
        assert result.returncode == 0, result.stderr
        assert f"Resuming from step {newest}" in result.stdout
        assert meta(workdir, STEPS)["sha256"] == meta(trained[0], STEPS)["sha256"]
