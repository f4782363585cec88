from pathlib import Path

import pytest

from m3dhmr_jax.evaluate.report import writer
from m3dhmr_jax.evaluate.report.writer import FREIHAND_SIZES, about, describe_split


@pytest.fixture
def sizes(monkeypatch):
    """The numbers of examples that the dataset reports."""
    counts = {"train": 70, "test": 5}
    monkeypatch.setattr(writer.loader, "size", lambda data, split: counts[split])
    return counts


@pytest.fixture
def config(tiny_config, tmp_path):
    return tiny_config(**{"data.source.folder": str(tmp_path), "data.source.synthetic_train": 0})


def test_describe_split_recognizes_synthetic_sets(sizes, config, tmp_path):
    (tmp_path / "synthetic.json").touch()
    assert describe_split(config, Path("prepared"), "train") == "70 synthetic images"
    (tmp_path / "synthetic.json").unlink()
    config.data.source.synthetic_train = 70
    assert describe_split(config, Path("prepared"), "test") == "5 synthetic images"


def test_describe_split_recognizes_freihand_by_size(sizes, config, tmp_path):
    assert describe_split(config, Path("prepared"), "train") == f"70 images of {tmp_path}"
    sizes.update(FREIHAND_SIZES)
    assert describe_split(config, Path("prepared"), "train") == "FreiHAND (130,240 images)"


def test_about_does_not_claim_data_of_given_weights(sizes, config):
    config.eval.checkpoint = "their.safetensors"
    origin = about(config, Path("prepared"), 0)
    assert origin.trained_on == "data unknown here (weights of their.safetensors)"
    assert origin.tested_on.startswith("5 images of")
    assert origin.config["model.width"] == "4"
    assert "jax" in origin.versions
