import json
import shutil

import numpy as np
import pytest

from m3dhmr_jax.evaluate import run
from m3dhmr_jax.evaluate.official import read_predictions, read_truth, score
from m3dhmr_jax.evaluate.run import errors_of_constant, mean_hand
from m3dhmr_jax.evaluate.scoring import score_batches, table
from m3dhmr_jax.hand import load_builtin

QUOTED = {"mpjpe_mm", "pa_mpjpe_mm", "pa_mpvpe_mm", "f_5", "f_15"}
OFFICIAL = {
    f"{part}{aligned}_{number}"
    for part in ("xyz", "mesh")
    for aligned in ("", "_al")
    for number in ("mean3d", "auc3d")
} | {f"f{aligned}_score_{mm}" for aligned in ("", "_al") for mm in (5, 15)}


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


def relative(batch):
    return batch.verts_m - batch.xyz_m[:, :1]


def rows(batch, chosen):
    return type(batch)(*(leaf[chosen] for leaf in batch))


def test_the_true_mesh_as_a_constant_scores_zero(hand_batch, hand):
    one = rows(hand_batch, slice(2, 3))
    scores = score_batches(errors_of_constant(relative(one)[0], hand), [one])
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pa_mpvpe_mm"):
        assert scores[name] < 0.01, name
    assert scores["f_5"] == 1
    assert scores["xyz_mean3d"] < 1e-5


def test_a_constant_is_put_at_each_true_root(hand_batch, hand):
    """The first mesh for all four: right for the first, its own shape's errors for the others."""
    samples = errors_of_constant(relative(hand_batch)[0], hand)(hand_batch)
    off = np.linalg.norm(relative(hand_batch) - relative(hand_batch)[:1], axis=-1)
    np.testing.assert_allclose(samples.mesh_m, off, atol=1e-5)
    np.testing.assert_allclose(samples.xyz_rel_m, samples.xyz_m, atol=1e-5)


def test_the_mean_hand_has_the_shape_that_all_share(hand_batch, hand):
    """Turned copies of one hand: their Procrustes mean is that hand, up to a similarity."""
    mean = mean_hand(hand_batch.verts_m, hand)
    scores = score_batches(errors_of_constant(mean.astype(np.float32), hand), [hand_batch])
    assert scores["pa_mpvpe_mm"] < 0.05
    np.testing.assert_allclose(hand.joint_regressor[0] @ mean, 0, atol=1e-5)


def test_the_mean_hand_is_a_better_guess_than_its_neighbours(hand_batch, hand):
    """Best in least squares among turned and scaled copies about the wrist."""
    mean = mean_hand(hand_batch.verts_m, hand)

    def cost(guess):
        return np.sum((relative(hand_batch) - guess) ** 2)

    turn = np.array([[np.cos(0.05), -np.sin(0.05), 0], [np.sin(0.05), np.cos(0.05), 0], [0, 0, 1]])
    for other in (1.03 * mean, 0.97 * mean, mean @ turn, mean @ turn.T):
        assert cost(mean) < cost(other)


def test_training_meshes_are_spread_over_the_set(monkeypatch, tmp_path):
    meshes = [{"verts": np.full((778, 3), i, np.float32)} for i in range(100)]
    monkeypatch.setattr(run.pipeline, "open_split", lambda data, split: meshes)
    monkeypatch.setattr(run, "MEAN_HAND_MESHES", 5)
    np.testing.assert_array_equal(run.training_meshes(tmp_path)[:, 0, 0], [0, 24, 49, 74, 99])


@pytest.fixture(scope="module")
def scored(trained):
    workdir, result = trained
    return json.loads((workdir / "eval" / "scores.json").read_text()), result


def test_a_finished_run_leaves_all_scores_beside_the_mean_hands(scored):
    scores, result = scored
    assert scores["step"] == 24
    for row in ("model", "mean_hand"):
        assert set(scores[row]) >= QUOTED | OFFICIAL
        assert all(np.isfinite(list(scores[row].values())))
    assert table({name: scores[name] for name in ("model", "mean_hand")}) in result.stdout


def test_evaluating_again_gives_the_same_numbers_at_any_batch_size(run_main, trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "copy")
    (workdir / "eval" / "scores.json").unlink()
    result = run_main(workdir, "--mode=evaluate", "--config.eval.batch_size=3")
    assert result.returncode == 0, result.stderr
    again, before = (
        json.loads((w / "eval" / "scores.json").read_text()) for w in (workdir, trained[0])
    )
    for row in ("model", "mean_hand"):
        for name in QUOTED:
            np.testing.assert_allclose(again[row][name], before[row][name], atol=1e-3)


def test_saved_predictions_get_the_scores_that_were_reported(run_main, trained, tmp_path):
    """From pred.json and the folder of the photos, by the official protocol, in float64."""
    workdir = shutil.copytree(trained[0], tmp_path / "copy")
    assert not (workdir / "eval" / "pred.json").exists()
    result = run_main(workdir, "--mode=evaluate", "--config.eval.save_predictions=true")
    assert result.returncode == 0, result.stderr
    assert str(workdir / "eval" / "pred.zip") in result.stdout
    truth = read_truth(run_main.data / "photos")
    again = score(read_predictions(workdir / "eval" / "pred.json", len(truth.xyz_m)), truth)
    reported = json.loads((workdir / "eval" / "scores.json").read_text())["model"]
    assert set(again) == set(reported)
    for name, value in again.items():
        # One of six meshes' vertices may change sides of a threshold in float32.
        tolerance = 1 / (6 * 778) if name.startswith("f_") or "auc" in name else 1e-7
        tolerance *= 1000 if name.endswith("_mm") else 1
        np.testing.assert_allclose(value, reported[name], 1e-5, tolerance, err_msg=name)
