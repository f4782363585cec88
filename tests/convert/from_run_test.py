"""A run as one weights file."""

import json

import numpy as np
import pytest

from m3dhmr_jax import HandMeshPredictor, cli
from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.checkpoints.weights import load_weights
from m3dhmr_jax.config_fields import NETWORK_FIELDS, check_names, flatten
from tests.conftest import exit_code

BOX = (30, 20, 80, 90)


def convert(*arguments):
    return exit_code(cli.main, ["convert", *map(str, arguments)])


@pytest.mark.long
def test_a_weights_file_predicts_as_its_run(trained, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (160, 140, 3), np.uint8)
    expected = HandMeshPredictor.from_checkpoint(trained[0])(image, BOX, "right")
    out = tmp_path / "full.safetensors"
    assert convert(trained[0], "--out", out) == 0
    assert f"step 24\nWrote {out}" in capsys.readouterr().out
    hands = HandMeshPredictor.from_checkpoint(out)(image, BOX, "right")
    np.testing.assert_array_equal(hands.verts_m, expected.verts_m)


@pytest.mark.long
def test_a_file_in_half_precision_rounds_parameters_only(trained, tmp_path):
    """Predictions are not compared: a network that was hardly trained amplifies rounding."""
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    assert convert(trained[0], "--out", full) == 0
    assert convert(trained[0], "--out", half, "--half") == 0
    assert half.stat().st_size < 0.7 * full.stat().st_size
    wanted, found = load_weights(full), load_weights(half)
    for name, array in wanted.params.items():
        rounded = found.params[name]
        assert rounded.dtype == np.float32
        np.testing.assert_array_equal(rounded, array.astype(np.float16).astype(np.float32), name)
    for name, array in wanted.stats.items():
        np.testing.assert_array_equal(found.stats[name], array, name)


@pytest.mark.long
def test_a_weights_file_knows_its_network_and_no_folder(trained, tmp_path):
    out = tmp_path / "small.safetensors"
    assert convert(trained[0], "--out", out) == 0
    config = load_config(out)
    check_names("it", config, NETWORK_FIELDS)
    assert set(flatten(config.to_dict())) == set(NETWORK_FIELDS)
    assert config.model == load_config(trained[0]).model
    metadata = load_weights(out).metadata
    assert str(trained[0].parent) not in json.dumps(metadata)
    assert metadata["step"] == "24"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--out", "w.bin"), "w.bin must end in .safetensors"),
        (("--out", "w.safetensors", "--prefix", "a"), "for PyTorch files"),
        (("--out", "w.safetensors"), "config.json"),
        (("--out", "there.safetensors"), "there.safetensors exists"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, capsys, options, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "there.safetensors").touch()
    assert convert("run", *options) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "w.safetensors").exists()


def test_half_precision_is_for_runs(tmp_path, capsys):
    (tmp_path / "a.pth").touch()
    out = tmp_path / "w.safetensors"
    assert convert(tmp_path / "a.pth", "--out", out, "--half") == 2
    assert "--half is for the folder of a run" in capsys.readouterr().err
