"""From a video to a network that was trained on with it, by the commands of docs/own_data.md."""

import json

import cv2
import numpy as np
import pytest

from benchmarks import finetune
from benchmarks.real_images import Label, Sample, project
from m3dhmr_jax import cli
from m3dhmr_jax.data import freihand
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics.freihand import batch_metrics
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.synthetic.photos import place_hands, render_photo
from m3dhmr_jax.synthetic.placement import Placement
from m3dhmr_jax.synthetic.recipe import QUICKSTART
from m3dhmr_jax.synthetic.scene import prepare_assets
from tests.conftest import exit_code
from tests.workdirs import steps_in

pytestmark = pytest.mark.long

SIZE_PX, RATE_HZ = (360, 270), 5
K = np.array([[340.0, 0, 180], [0, 340, 135], [0, 0, 1]])
# Seed and number of frames.
CLIPS = {"kitchen.mp4": (1, 12), "desk.mp4": (16, 6)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with two videos of a hand that moves, and the true hand of each frame."""
    folder, truth = tmp_path_factory.mktemp("own_data"), {}
    assets = prepare_assets(load_builtin())
    for name, (seed, frames) in CLIPS.items():
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(folder / name), codec, RATE_HZ, SIZE_PX)
        for frame in range(frames):
            rng, phase = np.random.default_rng(seed), frame / frames
            centre_px = 180 + 60 * np.sin(6 * phase), 135 + 15 * np.cos(6 * phase)
            placements = [Placement("right", centre_px, 150.0 + 20 * phase)]
            hands = place_hands(rng, assets, placements, K, SIZE_PX, QUICKSTART)
            photo = render_photo(rng, hands, K, SIZE_PX)
            writer.write(photo.image[..., ::-1])
            truth[name, frame] = hands[0].scene
        writer.release()
    return folder, truth


@pytest.fixture(scope="module")
def labelled(videos, detector):
    """The folder of the videos with `mine`, the labelled set, and `tfds`, the prepared one."""
    folder, _ = videos
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(HandDetector, "load", lambda: detector)
        k = ",".join(map(str, (K[0, 0], K[1, 1], K[0, 2], K[1, 2])))
        command = ["label", *CLIPS, "--out=mine", "--split=0.4", f"--K={k}"]
        assert exit_code(cli.main, command) == 0
        assert exit_code(cli.main, ["prepare", "mine", "--out=tfds/mine"]) == 0
    return folder


@pytest.fixture(scope="module")
def weights(trained, labelled):
    """The network to start from, as one file."""
    path = labelled / "start.safetensors"
    command = ["convert", str(trained[0]), "--out", str(path), "--half"]
    assert exit_code(cli.main, command) == 0
    return path


def test_labels_are_near_the_truth(labelled, videos):
    hands = json.loads((labelled / "mine/labels.json").read_text())["hands"]
    assert len(hands) >= 0.8 * len(videos[1])
    assert {h["source"] for h in hands if h["split"] == "evaluation"} == {"desk.mp4"}
    parts = {
        part: freihand.read_annotations(labelled / "mine", split)
        for split, part in freihand.FOLDERS.items()
    }
    errors_mm = []
    for hand in hands:
        part, row = parts[hand["split"]], int(hand["image"][-12:-4])
        true = videos[1][hand["source"], hand["frame"]]
        points_m = part.joints_m[row], part.verts_m[row], true.joints_m, true.verts_m
        errors = batch_metrics(*(np.asarray(x, np.float32)[None] for x in points_m))
        errors_mm.append(1000 * float(np.mean(errors.joint_errors_al_m)))
    assert np.mean(errors_mm) < 11
    assert max(errors_mm) < 18


def test_a_network_is_trained_on_and_compared(
    labelled, weights, run_main, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(labelled)
    source = {"folder": labelled / "mine", "prepared": labelled / "tfds/mine"}
    source |= {"synthetic_train": 0, "synthetic_test": 0}
    result = run_main(
        tmp_path / "run",
        *(f"--config.data.source.{name}={value}" for name, value in source.items()),
        f"--config.data.mix={((str(run_main.data / 'prepared'), 0.7),)}",
        "--config.epochs=1.0",
        "--config.eval.every_epochs=1.0",
        config=f"finetune.py:{weights}",
    )
    assert result.returncode == 0, result.stderr
    assert f"Starting from {weights}" in result.stdout
    names = str(weights), str(tmp_path / "run")
    out = tmp_path / "comparison"
    assert exit_code(cli.main, ["compare", *names, "--images=mine", f"--out={out}"]) == 0
    numbers = json.loads((out / "comparison.json").read_text())
    n_evaluation = freihand.count_images(labelled / "mine", "test")
    (row,) = numbers["pa_mpjpe_by_source"]
    assert (row["source"], row["hands"]) == ("desk.mp4", n_evaluation)
    assert row["difference_mm"] != 0
    assert (out / "report.html").is_file()
    own = json.loads((tmp_path / "run/eval/scores.json").read_text())["model"]
    assert numbers["scores"]["after"]["pa_mpjpe_mm"] == pytest.approx(own["pa_mpjpe_mm"], abs=0.2)


def test_the_benchmark_scores_before_and_after(
    labelled, weights, run_main, videos, tmp_path, monkeypatch
):
    true = videos[1]["desk.mp4", 0]
    label = Label(project(true.joints_m, K), "right", true.joints_m)
    image = np.random.default_rng(0).integers(0, 256, (270, 360, 3), np.uint8)
    samples = [Sample("a", "desk", image, K, [label])]
    monkeypatch.setattr(finetune, "real_sources", lambda _: {"desk": samples})
    monkeypatch.setattr(finetune.finetune, "get_config", small_batches(finetune.finetune))
    monkeypatch.setenv("REAL_DIR", str(tmp_path))
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path / "results.jsonl"))
    (tmp_path / "labels.json").write_text(json.dumps({"photos": []}))
    options = {"weights": weights, "labelled": labelled / "mine", "out": tmp_path / "out"}
    options |= {"rendered": run_main.data / "prepared", "steps": 3}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    lines = finetune.main([*arguments, "--seeds", "1"])
    found = [(line["when"], line["seed"], line["looks"]) for line in lines]
    looks = ("one look", "two looks")
    assert found == [(*when, each) for when in (("before", None), ("after", 1)) for each in looks]
    assert steps_in(tmp_path / "out/seed1")[-1] == 3
    assert len({line["nme_mean"] for line in lines}) == len(lines)
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == len(lines)


def small_batches(module):
    original = module.get_config

    def get_config(network):
        config = original(network)
        config.batch_size = config.eval.batch_size = 4
        return config

    return get_config
