"""The commands of the decoder benchmark, on a tiny network and a few images."""

import json

import pytest

pytest.importorskip("grain")
pytest.importorskip("tensorflow_datasets")

from benchmarks.decoders import __main__ as decoders
from benchmarks.decoders import features, training
from benchmarks.decoders.systems import SYSTEMS
from m3dhmr_jax.errors import UserError


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    return path


@pytest.mark.long
def test_commands_train_what_is_missing(
    prepared, weights_file, results, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(decoders, "check_hand_fits", lambda *args: None)  # The meshes are noise.
    folder = tmp_path / "features"
    flags = ["--checkpoint", str(weights_file), "--data", str(prepared), "--out", str(folder)]
    decoders.main(["features", *flags])
    flags = ["--features", str(folder), "--system", "dsconv", "--channels", "4,4,4,4"]
    command = ["train", *flags, "--steps", "12", "--batch_size", "2", "--seeds", "2"]
    run = training.settings_id(
        SYSTEMS["dsconv"],
        1,
        training.Settings((4, 4, 4, 4), 12, 2, 1e-3, features.read_manifest(folder)["weights"]),
    )
    with decoders._lock(training.state_file(folder / "states", run)):
        decoders.main(command)  # Leaves out what another process trains.
    (first,) = map(json.loads, results.read_text().splitlines())
    assert (first["system"], first["seed"]) == ("dsconv", 0)
    decoders.main(command)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1]
    assert [step for step, *_ in first["curve"]] == list(range(1, 13))
    assert not list((folder / "states").glob("*.safetensors"))
    decoders.main(command)
    assert len(results.read_text().splitlines()) == 2
    capsys.readouterr()
    decoders.main(["table", "--plot", str(tmp_path / "curves.svg")])
    assert "| dsconv" in capsys.readouterr().out
    assert "polyline" in (tmp_path / "curves.svg").read_text()


def test_train_refuses_features_of_weights_that_have_changed(weights_file, tmp_path):
    manifest = {"checkpoint": str(weights_file), "weights": "0123456789abcdef"}
    (tmp_path / features.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="features are of the weights 0123456789ab, but"):
        decoders.named_image_side(tmp_path)


@pytest.mark.parametrize("text", ["8,8,8", "8,8,8,0", "8,8,8,x", ""])
def test_parse_channels_rejects(text):
    with pytest.raises(UserError, match="four whole numbers"):
        decoders.parse_channels(text)


def test_parse_channels():
    assert decoders.parse_channels("64,32,16,8") == (64, 32, 16, 8)


def test_table_without_runs(results):
    with pytest.raises(UserError, match="no finished runs"):
        decoders.main(["table"])


def test_features_without_a_prepared_dataset(tmp_path):
    with pytest.raises(UserError, match="no prepared dataset there"):
        decoders.prepared_in(tmp_path)
