import dataclasses
import json
import shutil

import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.evaluate.comparison import run
from m3dhmr_jax.evaluate.comparison.run import load_pair
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.synthetic.imaging import encode_image
from tests.conftest import exit_code

long = pytest.mark.long


def compare(*arguments):
    return exit_code(cli.main, ["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def labelled(networks, labelled_set, tmp_path_factory):
    """The results on a labelled set: the folder, and the numbers."""
    out = tmp_path_factory.mktemp("out") / "comparison"
    assert compare(*networks, "--images", labelled_set, "--out", out) == 0
    return out, json.loads((out / "comparison.json").read_text())


@long
def test_scores_are_those_of_each_network_alone(labelled, networks, labelled_set):
    _, numbers = labelled
    assert (numbers["before"], numbers["after"]) == networks
    hands = numbers["hands"]
    assert [hand["image"][-5] for hand in hands] == list("0123")
    for kind, name in (("before", networks[0]), ("after", networks[1])):
        mean_mm = np.mean([hand[f"{kind}_pa_mpjpe_mm"] for hand in hands])
        assert numbers["scores"][kind]["pa_mpjpe_mm"] == pytest.approx(mean_mm, rel=1e-5)
        again = run.measure(list(run.labelled_hands(labelled_set, load_pair((name, name)))))
        assert again.apart_mm.max() == 0
        scores = again.entries[0].scores
        assert scores["pa_mpjpe_mm"] == pytest.approx(mean_mm, rel=1e-5)


@long
def test_sources_are_videos_and_folders(labelled):
    rows = {each["source"]: each for each in labelled[1]["pa_mpjpe_by_source"]}
    assert {name: each["hands"] for name, each in rows.items()} == {
        "desk.mp4": 2,
        "photos": 2,
        "all": 4,
    }
    for each in rows.values():
        low, high = each["interval_mm"]
        assert low < each["difference_mm"] < high


@long
def test_the_page_has_all_hands_worst_first(labelled):
    out, numbers = labelled
    page = (out / "report.html").read_text()
    worst = sorted(numbers["hands"], key=lambda hand: -hand["after_pa_mpjpe_mm"])
    last = page.split("<h2>Worst first</h2>")[1]
    at = [last.index(hand["image"]) for hand in worst]
    assert at == sorted(at)
    assert page.count("data:image/jpeg") == 2 * len(worst)  # Also where they differ most.


@long
def test_photos_are_shown_without_scores(networks, photos, tmp_path, fast_detector, capsys):
    out = tmp_path / "out"
    assert compare(networks[0], "fit", "--images", photos, "--out", out) == 0
    assert "2 hands; both meshes lie " in capsys.readouterr().out
    numbers = json.loads((out / "comparison.json").read_text())
    assert set(numbers) == {"before", "after", "hands"}
    assert [hand["image"] for hand in numbers["hands"]] == ["two.jpg"] * 2
    assert min(hand["apart_mm"] for hand in numbers["hands"]) > 1
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert "Plotly" not in page.split("<script>")[0]
    assert len(page) < 200_000


@long
def test_no_hand_is_an_error_that_says_how_many_were_looked_at(
    networks, tmp_path, fast_detector, capsys
):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        image = np.full((90, 120, 3), 90 + 60 * i, np.uint8)
        (tmp_path / f"photos/{i}.jpg").write_bytes(encode_image(image, 95))
    (tmp_path / "photos/bad.jpg").write_bytes(b"nothing")
    arguments = (*networks, "--images", tmp_path / "photos", "--out", tmp_path / "out")
    assert compare(*arguments) == 2
    assert "2 images were looked at" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@long
def test_skipped_photos_are_named(networks, photos, tmp_path, fast_detector, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/bad.jpg").write_bytes(b"nothing")
    arguments = (*networks, "--images", tmp_path / "photos", "--out", tmp_path / "out")
    assert compare(*arguments) == 2
    assert "bad.jpg" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "out/report.html").is_file()


@long
def test_networks_of_different_hands_are_rejected(
    networks, labelled_set, tmp_path, monkeypatch, capsys
):
    def other_hand(predictor):
        hand = real_hand.fget(predictor)
        return hand if predictor.weights_sha256 == first.weights_sha256 else doubled(hand)

    def doubled(hand):
        return dataclasses.replace(hand, verts_m=2 * hand.verts_m)

    first, real_hand = HandMeshPredictor.from_checkpoint(networks[0]), HandMeshPredictor.hand
    monkeypatch.setattr(HandMeshPredictor, "hand", property(other_hand))
    arguments = (*networks, "--images", labelled_set, "--out", tmp_path / "out")
    assert compare(*arguments) == 2
    assert "predict different hand models" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@long
def test_a_set_of_another_hand_is_rejected(networks, labelled_set, tmp_path, capsys):
    other = shutil.copytree(labelled_set, tmp_path / "other")
    joints_m = np.array(json.loads((other / "evaluation_xyz.json").read_text()))[:, ::-1]
    (other / "evaluation_xyz.json").write_text(json.dumps(joints_m.tolist()))
    assert compare(*networks, "--images", other, "--out", tmp_path / "out") == 2
    assert "labelled with another hand model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("fit", "none", "--images", "empty"), "no image or video"),
        (("fit", "none", "--images", "absent"), "absent: no such folder"),
        (("fit", "none", "--images", "full"), "none: neither the workdir of a run"),
        (("fit", "none", "--images", "full", "--out", "full"), "--out full is neither new"),
        (("fit", "none", "--images", "full", "--replace"), "--replace needs --out"),
    ],
)
def test_mistakes_are_named(arguments, text, tmp_path, monkeypatch, capsys, fast_detector):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.jpg").touch()
    assert compare(*arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
