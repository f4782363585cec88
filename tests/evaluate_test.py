import json
import shutil

import numpy as np
import pytest

from m3dhmr_jax import evaluate
from m3dhmr_jax.evaluate import errors_of_constant, mean_hand, score_batches, table, write_json
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics import batch_metrics

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


def errors_of_shifted(batch):
    """Every example is off by as many millimetres as its index says."""
    shift = np.float32(0.001) * batch.index[:, None, None].astype(np.float32)
    return batch_metrics(
        batch.xyz_m + shift * np.float32([1, 0, 0]),
        batch.verts_m + shift * np.float32([1, 0, 0]),
        batch.xyz_m,
        batch.verts_m,
    )


def test_every_valid_example_counts_once(hand_batch):
    """Batches of four with one filler each, which holds NaN and counts nowhere."""
    spoilt = hand_batch.verts_m.copy()
    spoilt[3] = np.nan
    batches = [
        hand_batch._replace(
            index=np.arange(i, i + 4, dtype=np.int32),
            verts_m=spoilt,
            valid=np.array([True, True, True, False]),
        )
        for i in (0, 10)
    ]
    scores = score_batches(errors_of_shifted, batches)
    np.testing.assert_allclose(1000 * scores["xyz_mean3d"], np.mean([0, 1, 2, 10, 11, 12]), 1e-3)


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


def test_the_table_has_a_row_per_entry_and_aligned_columns():
    entry = dict.fromkeys(QUOTED, 12.3456) | {"f_5": 0.7, "f_15": 0.9}
    lines = table({"model": entry, "mean_hand": entry | {"f_5": 0.5}}).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["model", "mean hand"]
    assert "PA-MPJPE mm" in lines[0]
    assert "12.35" in lines[2]
    assert "0.500" in lines[3]


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "eval" / "scores.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]


def test_training_meshes_are_spread_over_the_set(monkeypatch, tmp_path):
    meshes = [{"verts": np.full((778, 3), i, np.float32)} for i in range(100)]
    monkeypatch.setattr(evaluate.pipeline, "open_split", lambda data, split: meshes)
    monkeypatch.setattr(evaluate, "MEAN_HAND_MESHES", 5)
    np.testing.assert_array_equal(evaluate.training_meshes(tmp_path)[:, 0, 0], [0, 24, 49, 74, 99])


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
