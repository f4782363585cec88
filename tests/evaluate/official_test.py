import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.evaluate import official
from m3dhmr_jax.evaluate.official import Hands, read_predictions, read_truth, score, scores_text
from m3dhmr_jax.metrics.freihand import batch_metrics, scores

KINDS = ("xyz", "verts")


def hands(n, seed, spread_m=0.05):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 799, 3)) * spread_m + [0.0, 0.1, 0.7]
    return Hands(points[:, :21].round(6), points[:, 21:].round(6))


@pytest.fixture(scope="module")
def truth():
    return hands(3, seed=0)


@pytest.fixture(scope="module")
def pred(truth):
    noise = hands(3, seed=1, spread_m=0.005)
    return Hands(
        *((a + b - b.mean(axis=(0, 1))).round(6) for a, b in zip(truth, noise, strict=True))
    )


@pytest.fixture
def files(tmp_path, truth, pred):
    """Writes the truth; gives a function that writes the given lists and scores them."""
    folder, out = tmp_path / "truth", tmp_path / "out" / "scores.json"
    folder.mkdir()
    for name, values in zip(KINDS, truth, strict=True):
        (folder / f"evaluation_{name}.json").write_text(json.dumps(values.tolist()))

    def run(content=None, text=None):
        path = tmp_path / "pred.json"
        content = [values.tolist() for values in pred] if content is None else content
        path.write_text(json.dumps(content) if text is None else text)
        return cli.main(["score", "--pred", str(path), "--gt", str(folder), "--out", str(out)])

    run.folder, run.out = folder, out
    return run


def changed(pred, which, sample, change):
    lists = [values.tolist() for values in pred]
    lists[which][sample] = change(lists[which][sample])
    return lists


def test_a_file_is_scored_as_its_arrays_are(files, pred, truth):
    assert files() == 0
    got = json.loads(files.out.read_text())
    want = scores(batch_metrics(*(x.astype(np.float32) for x in (*pred, *truth))))
    assert set(got) == set(want)
    np.testing.assert_allclose([got[key] for key in want], list(want.values()), atol=1e-5)


def test_the_text_beside_it_says_centimetres_in_the_official_order(files):
    assert files() == 0
    lines = files.out.with_suffix(".txt").read_text().splitlines()
    got = {key: float(value) for key, value in (line.split(": ") for line in lines)}
    full = json.loads(files.out.read_text())
    assert list(got)[:2] == ["xyz_mean3d", "xyz_auc3d"]
    assert list(got)[-2:] == ["f_score_15", "f_al_score_15"]
    np.testing.assert_allclose(got["mesh_al_mean3d"], 100 * full["mesh_al_mean3d"], atol=1e-6)
    np.testing.assert_allclose(got["f_score_5"], full["f_score_5"], atol=1e-6)


def test_half_a_nanometre_decides_whether_a_vertex_counts(truth):
    """As in the official script, which computes in float64."""
    xyz, _ = truth
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0), [7.0]), -1).reshape(-1, 3)[None]
    for off_m, share in ((0.005 - 5e-10, 1.0), (0.005 + 5e-10, 0.0)):
        moved = Hands(xyz[:1], grid + np.array([off_m, 0, 0]))
        assert score(moved, Hands(xyz[:1], grid))["f_score_5"] == share


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_what_is_not_finite_is_named_and_nothing_written(files, pred, capsys, which, junk):
    def spoil(hand):
        hand[3][1] = junk
        return hand

    assert files(changed(pred, which, 1, spoil)) == 2
    said = capsys.readouterr().err
    assert f"list of {KINDS[which]}: sample 1 " in said
    assert "it holds NaN or infinity" in said
    assert not files.out.parent.exists()


@pytest.mark.parametrize(
    ("which", "change", "reason"),
    [
        (1, lambda hand: hand[:-1], "list of verts: sample 2 .*it has shape \\(777, 3\\)"),
        (1, lambda hand: [*hand, hand[0]], "list of verts: sample 2 .*it has shape \\(779, 3\\)"),
        (0, lambda hand: hand[:20], "list of xyz: sample 2 .*it has shape \\(20, 3\\)"),
        (0, lambda hand: [[*p, 1.0] for p in hand], "sample 2 .*it has shape \\(21, 4\\)"),
        (0, lambda hand: [*hand[:20], [0.0]], "sample 2 .*lists are of unequal lengths"),
        (0, lambda hand: [*hand[:20], [0, 0, "1"]], "sample 2 .*something else than numbers"),
        (1, lambda hand: None, "list of verts: sample 2 "),
    ],
)
def test_a_sample_of_another_shape_is_named_with_its_shape(
    files, pred, capsys, which, change, reason
):
    assert files(changed(pred, which, 2, change)) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(reason, said), said
    assert not files.out.parent.exists()


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        (lambda xyz, verts: [xyz[:2], verts[:2]], "list of xyz has 2 samples, but the truth has 3"),
        (lambda xyz, verts: [xyz * 2, verts * 2], "list of xyz has 6 samples, but the truth has 3"),
        (lambda xyz, verts: [xyz, verts[:2]], "list of verts has 2 samples, but the truth has 3"),
        (lambda xyz, verts: [xyz, []], "list of verts has 0 samples, .*give zeros, 778 vertices"),
        (lambda xyz, verts: [verts, xyz], "list of xyz: sample 0 .*it has shape \\(778, 3\\)"),
        (lambda xyz, verts: [xyz], "must be a list of exactly 2 lists, xyz and verts"),
        (lambda xyz, verts: [xyz, verts, verts], "must be a list of exactly 2 lists"),
        (lambda xyz, verts: [xyz, verts, 1], "must be a list of exactly 2 lists"),
        (lambda xyz, verts: xyz, "must be a list of exactly 2 lists"),
        (lambda xyz, verts: [], "must be a list of exactly 2 lists"),
        (lambda xyz, verts: {"xyz": xyz, "verts": verts}, "expected a JSON list"),
    ],
)
def test_other_lists_are_refused(files, pred, capsys, lists, reason):
    assert files(lists(*(values.tolist() for values in pred))) == 2
    said = capsys.readouterr().err
    assert re.search(reason, said), said
    assert not files.out.parent.exists()


@pytest.mark.parametrize("keep", [1, 5, 2000, 5000, 0.5, 0.999, -2, -1])
def test_a_file_cut_short_is_refused_wherever_it_ends(files, pred, capsys, keep):
    text = json.dumps([values.tolist() for values in pred])
    end = int(len(text) * keep) if isinstance(keep, float) else keep
    assert files(text=text[:end]) == 2
    assert "middle" in capsys.readouterr().err
    assert not files.out.parent.exists()


def test_a_missing_file_is_named(files, tmp_path, capsys):
    arguments = ["--gt", str(files.folder), "--out", str(files.out)]
    assert cli.main(["score", "--pred", str(tmp_path / "absent.json"), *arguments]) == 2
    assert "absent.json: no such file" in capsys.readouterr().err
    (files.folder / "evaluation_verts.json").unlink()
    assert files() == 2
    assert "evaluation_verts.json: no such file" in capsys.readouterr().err


def test_a_truth_whose_lists_differ_in_length_is_refused(files):
    path = files.folder / "evaluation_xyz.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    with pytest.raises(ValueError, match=r"has 2 samples and evaluation_verts\.json 3"):
        read_truth(files.folder)


def test_scores_go_only_into_a_json_file(files, capsys):
    files()
    arguments = ["--pred", str(files.out), "--gt", str(files.folder), "--out", "scores.txt"]
    assert cli.main(["score", *arguments]) == 2
    assert r"must end in .json" in capsys.readouterr().err


def test_predictions_come_back_as_they_were_written_and_zipped(tmp_path, pred):
    path = tmp_path / "eval" / "pred.json"
    rounded = Hands(*(values.astype(np.float32) for values in pred))
    zipped = official.write_predictions(path, rounded)
    again = read_predictions(path, len(pred.joints_m))
    for a, b in zip(again, rounded, strict=True):
        np.testing.assert_array_equal(a.astype(np.float32), b)
    with zipfile.ZipFile(zipped) as archive:
        assert archive.namelist() == ["pred.json"]
        assert archive.read("pred.json") == path.read_bytes()
    assert {p.name for p in path.parent.iterdir()} == {"pred.json", "pred.zip"}
    lists = json.loads(path.read_text())
    assert [np.shape(values) for values in lists] == [(3, 21, 3), (3, 778, 3)]


def test_predictions_that_are_not_finite_are_not_written(tmp_path, pred):
    spoilt = pred.verts_m.copy()
    spoilt[2, 5, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 3 predictions hold NaN or infinity, sample 2 of v"):
        official.write_predictions(tmp_path / "pred.json", pred._replace(verts_m=spoilt))
    assert not list(tmp_path.iterdir())


def test_scoring_needs_no_loader_and_no_network():
    """Nor their start-up time."""
    code = "import sys, m3dhmr_jax.evaluate.official as _; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    heavy = {"grain", "tensorflow_datasets", "flax", "optax", "orbax", "cv2"}
    assert not heavy & set(loaded.split())


@pytest.mark.parity
def test_official_files_get_the_official_scores_and_text(reference, tmp_path, capsys):
    folder, out = reference / "freihand_eval_8", tmp_path / "scores.json"
    pred, gt = folder / "res" / "pred.json", folder / "ref"
    assert cli.main(["score", "--pred", str(pred), "--gt", str(gt), "--out", str(out)]) == 0
    assert out.with_suffix(".txt").read_text() == (folder / "scores.txt").read_text()
    want, got = json.loads((folder / "scores.json").read_text()), json.loads(out.read_text())
    numbers = {key: value for key, value in want.items() if isinstance(value, float)}
    assert numbers.keys() <= got.keys()
    for key, value in numbers.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parity
def test_every_recorded_score_is_met_in_float64(reference):
    peer = np.load(reference / "metrics.npz")
    pred, truth = (
        Hands(peer[f"{who}_xyz"].astype(float), peer[f"{who}_verts"].astype(float))
        for who in ("pred", "gt")
    )
    result = score(pred, truth)
    official_keys = [key for key in result if key in peer.files]
    assert len(official_keys) == 16
    for key in official_keys:
        np.testing.assert_allclose(result[key], peer[key], rtol=0, atol=1e-11, err_msg=key)
    assert set(official._TEXT_KEYS) <= set(official_keys)
    assert len(scores_text(result).splitlines()) == 12
