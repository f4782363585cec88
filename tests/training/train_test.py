import shutil

import jax
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.training import train as train_module
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.training.train import train
from tests.toy import N_EXAMPLES, use_toy
from tests.workdirs import meta


@pytest.fixture
def run(monkeypatch, tiny_config):
    """Trains the toy network for a number of epochs of two steps."""
    use_toy(monkeypatch)

    def run(workdir, epochs, **changes):
        fields = {"optim.ema_decay": 0.9, "optim.lr_decay_epochs": (1.5,)} | changes
        assert tiny_config().batch_size == N_EXAMPLES // 2
        train(tiny_config(epochs=epochs, **fields), workdir)

    return run


@pytest.fixture
def no_initialization(monkeypatch):
    def fail(network):
        raise AssertionError("a resumed run initialises parameters")

    return lambda: monkeypatch.setattr(Network, "initialized", fail)


def test_train_resumes_to_the_bits_of_an_unbroken_run(run, no_initialization, tmp_path, capsys):
    """The digest covers parameters, statistics, moments, EMA and step."""
    run(tmp_path / "unbroken", 2.0)
    run(tmp_path / "broken", 1.0)
    no_initialization()
    capsys.readouterr()
    run(tmp_path / "broken", 2.0, init_from="nowhere/at/all")
    out = capsys.readouterr().out
    assert "Resuming from step 2" in out
    assert "landmarks_kernel" in out
    broken, unbroken = (meta(tmp_path / name, 4) for name in ("broken", "unbroken"))
    assert broken["sha256"] == unbroken["sha256"]
    assert broken["scores"] == unbroken["scores"]


def test_train_rejects_a_run_whose_checkpoints_are_all_corrupted(run, no_initialization, tmp_path):
    run(tmp_path, 1.0)
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-9])
    no_initialization()
    with pytest.raises(ValueError, match=r"\[2\]"):
        run(tmp_path, 2.0)


def test_train_resumes_from_the_checkpoint_before_a_corrupted_one(run, tmp_path, capsys):
    run(tmp_path / "run", 1.0)
    older = shutil.copytree(tmp_path / "run" / "checkpoints" / "2", tmp_path / "2")
    run(tmp_path / "run", 2.0)
    digest = meta(tmp_path / "run", 4)["sha256"]
    for path in (tmp_path / "run" / "checkpoints" / "4" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-9])
    shutil.copytree(older, tmp_path / "run" / "checkpoints" / "2", dirs_exist_ok=True)
    run(tmp_path / "run", 2.0)
    assert "Resuming from step 2" in capsys.readouterr().out
    assert meta(tmp_path / "run", 4)["sha256"] == digest


def test_train_rejects_init_from_of_a_new_run(run, tmp_path):
    with pytest.raises((UserError, FileNotFoundError), match="nowhere/at/all"):
        run(tmp_path, 1.0, init_from="nowhere/at/all")
    assert not list(tmp_path.rglob("config.json"))


def test_train_leaves_errors_inside_a_network_alone(run, monkeypatch, tmp_path):
    """A programmer's mistake, such as swapped axes of eq. 2, is not a user's."""

    def swapped(self, image):
        return jax.numpy.einsum("vn,bve->bne", self.landmarks_kernel[...], image)

    monkeypatch.setattr("tests.toy.ToyNetwork.__call__", swapped)
    with pytest.raises(ValueError, match="ein") as error:
        run(tmp_path, 1.0)
    assert not isinstance(error.value, UserError)


def test_test_set_batches_read_with_the_configured_threads(monkeypatch, tiny_config, tmp_path):
    from m3dhmr_jax.evaluate import run as evaluation

    calls = []

    def eval_batches(*_, **kwargs):
        calls.append(kwargs)
        return iter(())

    monkeypatch.setattr(evaluation.loader, "eval_batches", eval_batches)
    evaluation.test_set_batches(tiny_config(**{"data.loader.threads": 7}), tmp_path)
    assert [call["threads"] for call in calls] == [7]
    assert train_module.test_set_batches is evaluation.test_set_batches


@pytest.mark.parametrize("field", ["epochs", "checkpoint_every_epochs", "eval.every_epochs"])
def test_schedule_rejects_an_empty_interval(tiny_config, field):
    with pytest.raises(UserError, match=f"{field}=0.0"):
        Schedule.of(tiny_config(**{field: 0.0}), 24)


def test_schedule_rejects_a_batch_larger_than_the_training_set(tiny_config):
    with pytest.raises(UserError, match=r"batch_size=4.* 3"):
        Schedule.of(tiny_config(), 3)


def test_schedule_counts_in_steps(tiny_config):
    config = tiny_config(
        **{
            "batch_size": 5,
            "epochs": 4.0,
            "checkpoint_every_epochs": 1.5,
            "eval.every_epochs": 3.0,
        }
    )
    schedule = Schedule.of(config, 24)  # Four complete batches an epoch.
    assert (schedule.steps, schedule.steps_per_epoch) == (16, 4)
    assert [s for s in range(1, 17) if schedule.saves(s)] == [6, 12, 16]
    assert [s for s in range(1, 17) if schedule.evaluates(s)] == [12, 16]
