import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate import official
from m3dhmr_jax.evaluate.official import Hands, read_predictions, read_truth, score, scores_text
from m3dhmr_jax.metrics.freihand import batch_metrics, scores

KINDS = ("xyz", "verts")


def hands(n, seed, spread_m=0.03):
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
def truth_folder(tmp_path, truth):
    for kind, values in zip(KINDS, truth, strict=True):
        (tmp_path / f"evaluation_{kind}.json").write_text(json.dumps(values.tolist()))
    return tmp_path


@pytest.fixture
def read(tmp_path):
    """Writes a prediction file of three samples and reads it."""

    def write_and_read(content=None, text=None):
        path = tmp_path / "pred.json"
        path.write_text(json.dumps(content) if text is None else text)
        return read_predictions(path, 3)

    return write_and_read


def changed(pred, kind, sample, change):
    lists = [values.tolist() for values in pred]
    lists[kind][sample] = change(lists[kind][sample])
    return lists


def test_score_of_files_matches_arrays(read, truth_folder, pred, truth):
    got = score(read([values.tolist() for values in pred]), read_truth(truth_folder))
    want = scores(batch_metrics(*(x.astype(np.float32) for x in (*pred, *truth))))
    assert set(got) == set(want)
    np.testing.assert_allclose([got[key] for key in want], list(want.values()), atol=1e-5)


def test_scores_text_is_in_official_order_and_centimetres(pred, truth):
    result = score(pred, truth)
    lines = scores_text(result).splitlines()
    got = {key: float(value) for key, value in (line.split(": ") for line in lines)}
    assert list(got)[:2] == ["xyz_mean3d", "xyz_auc3d"]
    assert list(got)[-2:] == ["f_score_15", "f_al_score_15"]
    np.testing.assert_allclose(got["mesh_al_mean3d"], 100 * result["mesh_al_mean3d"], atol=1e-6)
    np.testing.assert_allclose(got["f_score_5"], result["f_score_5"], atol=1e-6)


def test_score_is_in_float64(truth):
    """Half a nanometre decides whether a vertex counts, as in the official script."""
    joints_m, _ = truth
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0), [7.0]), -1).reshape(-1, 3)[None]
    for shift_m, f_score in ((0.005 - 5e-10, 1.0), (0.005 + 5e-10, 0.0)):
        moved = Hands(joints_m[:1], grid + np.array([shift_m, 0, 0]))
        assert score(moved, Hands(joints_m[:1], grid))["f_score_5"] == f_score


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_read_predictions_rejects_nonfinite_sample(read, pred, kind, junk):
    def spoil(hand):
        hand[3][1] = junk
        return hand

    with pytest.raises(ValueError, match=rf"{KINDS[kind]}.* 1 "):
        read(changed(pred, kind, 1, spoil))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (1, lambda hand: hand[:-1]),
        (1, lambda hand: [*hand, hand[0]]),
        (0, lambda hand: hand[:20]),
        (0, lambda hand: [[*p, 1.0] for p in hand]),
        (0, lambda hand: [*hand[:20], [0.0]]),
        (0, lambda hand: [*hand[:20], [0, 0, "1"]]),
        (1, lambda hand: None),
    ],
)
def test_read_predictions_rejects_sample_of_other_shape(read, pred, kind, change):
    with pytest.raises(ValueError, match=rf"{KINDS[kind]}.* 2 "):
        read(changed(pred, kind, 2, change))


@pytest.mark.parametrize(
    "lists",
    [
        lambda xyz, verts: [xyz[:2], verts[:2]],
        lambda xyz, verts: [xyz * 2, verts * 2],
        lambda xyz, verts: [xyz, verts[:2]],
        lambda xyz, verts: [xyz, []],
        lambda xyz, verts: [verts, xyz],
        lambda xyz, verts: [xyz],
        lambda xyz, verts: [xyz, verts, verts],
        lambda xyz, verts: [xyz, verts, 1],
        lambda xyz, verts: xyz,
        lambda xyz, verts: [],
        lambda xyz, verts: {"xyz": xyz, "verts": verts},
    ],
)
def test_read_predictions_rejects_other_lists(read, pred, lists):
    with pytest.raises(ValueError, match=r"pred\.json"):
        read(lists(*(values.tolist() for values in pred)))


@pytest.mark.parametrize("keep", [0, 1, 5, 2000, 5000, 0.5, 0.999, -2, -1])
def test_read_predictions_rejects_truncated_file(read, pred, keep):
    text = json.dumps([values.tolist() for values in pred])
    end = int(len(text) * keep) if isinstance(keep, float) else keep
    with pytest.raises(ValueError, match=r"pred\.json"):
        read(text=text[:end])


def zipped(path, *members, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_read_predictions_reads_the_zip_that_is_submitted(tmp_path, pred):
    content = json.dumps([values.tolist() for values in pred])
    rubbish = ("__MACOSX/._pred.json", "rubbish")
    path = zipped(tmp_path / "any_name", ("pred.json", content), rubbish)
    for got, want in zip(read_predictions(path, 3), pred, strict=True):
        np.testing.assert_array_equal(got, want)


def test_read_predictions_rejects_other_zips(tmp_path, pred):
    content = json.dumps([values.tolist() for values in pred])
    path = zipped(tmp_path / "pred.zip", ("a.json", content), ("b.json", content))
    with pytest.raises(UserError, match=r"pred\.zip: holds 2 \.json files"):
        read_predictions(path, 3)
    with pytest.raises(UserError, match=r"pred\.zip: holds 0 \.json files"):
        read_predictions(zipped(path, ("a.txt", content)), 3)
    with pytest.raises(UserError, match=r"pred\.zip.*expected a JSON list"):
        read_predictions(zipped(path, ("a.json", content[:-9])), 3)
    intact = zipped(path, ("a.json", content)).read_bytes()
    for damaged in (intact[:-9], intact[:99] + bytes(99) + intact[198:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"pred\.zip: not a readable zip"):
            read_predictions(path, 3)


def test_read_predictions_does_not_unpack_a_zip_bomb(tmp_path):
    """A thousand times as much content as the file has."""
    bomb = zipped(tmp_path / "pred.zip", ("pred.json", b"[" * (8 << 20)))
    assert bomb.stat().st_size < 20_000
    with pytest.raises(UserError, match=r"pred\.json has 8 MB, more than"):
        read_predictions(bomb, 3)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda x: 1000 * x, "in millimetres; convert"),
        (lambda x: 100 * x, "in centimetres; convert"),
        (lambda x: 10 * x, "another unit"),
        (lambda x: x - [0, 0.1, 0.7], "relative to the wrist"),
        (lambda x: x * [1, -1, -1], "z axis seems to point to the viewer"),
        (lambda x: x + np.array([0, 0, 700]), "position of the hand"),
    ],
)
def test_coordinates_that_are_not_metres_in_camera_space_are_rejected(
    truth_folder, truth, read, change, cause, capsys
):
    lists = [change(values).tolist() for values in truth]
    if cause == "another unit":  # Predictions may also just be wrong: that is told.
        read(lists)
        assert "most hands are" in capsys.readouterr().err
    else:
        with pytest.raises(UserError, match=rf"pred\.json, xyz: .*{cause}"):
            read(lists)
    (truth_folder / "evaluation_verts.json").write_text(json.dumps(lists[1]))
    (truth_folder / "evaluation_xyz.json").write_text(json.dumps(lists[0]))
    with pytest.raises(UserError, match=f"{truth_folder}, xyz: .*{cause}"):
        read_truth(truth_folder)


def test_single_hands_may_be_anywhere_and_meshes_missing(read, truth):
    joints_m, verts_m = truth
    far_m = joints_m * np.array([1, 1, 1000])[:, None, None]
    read([far_m.tolist(), np.zeros_like(verts_m).tolist()])
    with pytest.raises(UserError, match=r"pred\.json, verts: .* in millimetres"):
        read([joints_m.tolist(), (1000 * verts_m).tolist()])


def test_read_truth_names_a_folder_that_is_deeper(truth_folder):
    inner = truth_folder.rename(truth_folder.with_name(f"{truth_folder.name}_inner"))
    outer = truth_folder / "FreiHAND_pub_v2"
    outer.parent.mkdir()
    inner.rename(outer)
    with pytest.raises(UserError, match=f"It is in {outer}, a level deeper"):
        read_truth(outer.parent)


def test_read_truth_rejects_missing_and_inconsistent_files(truth_folder):
    path = truth_folder / "evaluation_xyz.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    with pytest.raises(UserError, match="2 samples"):
        read_truth(truth_folder)
    path.unlink()
    with pytest.raises(UserError, match=path.name):
        read_truth(truth_folder)


def test_write_predictions_round_trip(tmp_path, pred):
    path = tmp_path / "eval" / "pred.json"
    rounded = Hands(*(values.astype(np.float32) for values in pred))
    zip_path = official.write_predictions(path, rounded)
    again = read_predictions(path, len(pred.joints_m))
    for a, b in zip(again, rounded, strict=True):
        np.testing.assert_array_equal(a.astype(np.float32), b)
    with zipfile.ZipFile(zip_path) as archive:
        assert archive.namelist() == ["pred.json"]
        assert archive.read("pred.json") == path.read_bytes()
    assert {p.name for p in path.parent.iterdir()} == {"pred.json", "pred.zip"}
    lists = json.loads(path.read_text())
    assert [np.shape(values) for values in lists] == [(3, 21, 3), (3, 778, 3)]


def test_write_predictions_rejects_nonfinite(tmp_path, pred):
    spoilt = pred.verts_m.copy()
    spoilt[2, 5, 0] = np.nan
    with pytest.raises(UserError, match="sample 2 of verts"):
        official.write_predictions(tmp_path / "pred.json", pred._replace(verts_m=spoilt))
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_scoring_imports_no_loader_or_network():
    """Nor waits for them."""
    code = "import sys, m3dhmr_jax.evaluate.official; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"grain", "tensorflow_datasets", "flax", "optax", "orbax", "cv2"}
    assert not heavy & set(run.stdout.split())


@pytest.mark.parity
def test_score_matches_official_files(reference):
    folder = reference / "freihand_eval_8"
    truth = read_truth(folder / "ref")
    predictions = read_predictions(folder / "res" / "pred.json", len(truth.joints_m))
    got = score(predictions, truth)
    assert scores_text(got) == (folder / "scores.txt").read_text()
    want = json.loads((folder / "scores.json").read_text())
    numbers = {key: value for key, value in want.items() if isinstance(value, float)}
    assert numbers.keys() <= got.keys()
    for key, value in numbers.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parity
def test_score_matches_recorded_scores(reference):
    recorded = np.load(reference / "metrics.npz")
    pred, truth = (
        Hands(recorded[f"{who}_xyz"].astype(float), recorded[f"{who}_verts"].astype(float))
        for who in ("pred", "gt")
    )
    result = score(pred, truth)
    official_keys = [key for key in result if key in recorded.files]
    assert len(official_keys) == 16
    for key in official_keys:
        np.testing.assert_allclose(result[key], recorded[key], rtol=0, atol=1e-11, err_msg=key)
    assert set(official._TEXT_KEYS) <= set(official_keys)
    assert len(scores_text(result).splitlines()) == 12
