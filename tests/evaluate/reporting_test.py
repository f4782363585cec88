from pathlib import Path

import pytest

from m3dhmr_jax.evaluate import reporting
from m3dhmr_jax.evaluate.reporting import FREIHAND_SIZES, about, photos_of


@pytest.fixture
def sizes(monkeypatch):
    """What the dataset is said to hold."""
    counts = {"train": 70, "test": 5}
    monkeypatch.setattr(reporting.loader, "size", lambda data, split: counts[split])
    return counts


@pytest.fixture
def config(tiny_config, tmp_path):
    return tiny_config(**{"data.source.folder": str(tmp_path), "data.source.synthetic_train": 0})


def test_a_synthetic_set_is_called_so_by_its_own_word_or_the_configs(sizes, config, tmp_path):
    (tmp_path / "synthetic.json").touch()
    assert photos_of(config, Path("prepared"), "train") == "70 synthetic photos"
    (tmp_path / "synthetic.json").unlink()
    config.data.source.synthetic_train = 70
    assert photos_of(config, Path("prepared"), "test") == "5 synthetic photos"


def test_freihand_is_known_by_its_sizes_and_any_other_set_by_its_folder(sizes, config, tmp_path):
    assert photos_of(config, Path("prepared"), "train") == f"70 photos of {tmp_path}"
    sizes.update(FREIHAND_SIZES)
    assert photos_of(config, Path("prepared"), "train") == "FreiHAND (130,240 photos)"


def test_weights_from_elsewhere_are_not_said_to_be_trained_on_the_configs_data(sizes, config):
    config.eval.checkpoint = "their.safetensors"
    origin = about(config, Path("prepared"), 0)
    assert origin.trained_on == "data unknown here (weights of their.safetensors)"
    assert origin.tested_on.startswith("5 photos of")
    assert origin.config["model.width"] == "4"
    assert "jax" in origin.versions
