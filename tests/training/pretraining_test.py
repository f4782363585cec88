"""The 2D pre-training as a run, and runs that start from it or from a weights file."""

import functools
import json

import jax
import numpy as np
import optax
import pytest

from m3dhmr_jax import losses
from m3dhmr_jax.builders import create_pretraining
from m3dhmr_jax.checkpoints.restore import read_run
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.training.step import Objective, init_state, make_train_step
from tests.workdirs import steps_in

pytestmark = pytest.mark.long

PRETRAIN = "pretrain2d.py:network=quickstart"
SCORES = {"landmark_error_px", "landmark_median_px", "pck_5px"}


@pytest.fixture(scope="module")
def pretrained(run_main, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained")
    result = run_main(workdir, config=PRETRAIN)
    assert result.returncode == 0, result.stderr
    return workdir, result


@pytest.fixture(scope="module")
def started(run_main, pretrained, tmp_path_factory):
    """A main run of one epoch that started from the pre-training."""
    workdir = tmp_path_factory.mktemp("started")
    flags = (f"--config.init_from={pretrained[0]}", "--mode=train", "--config.epochs=1.0")
    result = run_main(workdir, *flags)
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_pretraining_lowers_both_loss_terms(tiny_config, hand_batch):
    """On four images that are always cropped alike."""
    config = tiny_config(task="landmarks")
    network = create_pretraining(config)
    geometry = ("scale_jitter", "rotation_probability", "stretch", "shift")
    colour = ("brightness", "contrast", "saturation", "hue")
    still = AugmentConfig(
        network.image_size,
        upright=False,
        scale=1.3,
        max_angle_deg=0.0,
        **dict.fromkeys((*geometry, *colour), 0.0),
    )

    loss_terms_fn = functools.partial(losses.two_view_terms_2d, sigma_cells=1.5)

    weights = {"heatmap": 100.0, "pose2d": 1.0}
    optimizer = optax.adam(3e-2)
    step = make_train_step(
        network.graphdef, loss_terms_fn, optimizer, Objective(weights), still, 0.0
    )
    step, state = jax.jit(step), init_state(network.params, network.stats, optimizer, 0.0)
    history = []
    for _ in range(60):
        state, terms = step(state, hand_batch, jax.random.key(0))
        history.append(terms)
    for name in weights:
        assert history[-1][name] < 0.5 * history[0][name], name


def test_pretraining_is_scored_next_to_the_mean_landmarks(pretrained):
    workdir, result = pretrained
    assert "step 24: landmark_error_px" in result.stdout + result.stderr
    assert "mean landmarks" in result.stdout
    scores = json.loads((workdir / "eval" / "scores.json").read_text())
    assert scores["step"] == 24
    for row in ("model", "mean_landmarks"):
        assert set(scores[row]) == SCORES
        assert all(np.isfinite(list(scores[row].values())))


def test_run_starts_from_a_pretraining(started):
    workdir, result = started
    assert "Starting from" in result.stdout
    assert "unused: heatmap_head, map_head" in result.stdout
    assert steps_in(workdir)[-1] == 3


def test_resumed_run_ignores_init_from(run_main, started):
    """The source may be gone."""
    workdir, _ = started
    flags = ("--mode=train", "--config.epochs=2.0", "--config.init_from=nowhere/at/all")
    result = run_main(workdir, *flags)
    assert result.returncode == 0, result.stderr
    assert "Resuming from step 3" in result.stdout
    assert "Starting from" not in result.stdout


@pytest.mark.parametrize(
    ("config", "flags", "words"),
    [
        ("quickstart.py", ["--config.task=segments"], "task='segments'"),
        (
            PRETRAIN,
            ["--config.eval.save_predictions=True", "--mode=evaluate"],
            "eval.save_predictions=True",
        ),
        ("pretrain2d.py:network=resnet17", [], "network=resnet17"),
    ],
)
def test_run_rejects_bad_input(run_main, tmp_path, config, flags, words):
    result = run_main(tmp_path / "run", *flags, config=config)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert words in result.stderr


def test_weights_file_scores_as_its_checkpoint(run_main, trained, tmp_path):
    weights = read_run(trained[0])
    save_weights(tmp_path / "weights", weights.params, weights.stats, {})
    flags = ("--mode=evaluate", f"--config.eval.checkpoint={tmp_path / 'weights'}")
    result = run_main(tmp_path / "run", *flags)
    assert result.returncode == 0, result.stderr
    again, before = (
        json.loads((w / "eval" / "scores.json").read_text()) for w in (tmp_path / "run", trained[0])
    )
    assert again["model"] == before["model"]
    assert again["checkpoint"] == str(tmp_path / "weights")
