import json

import numpy as np
import pytest

from configs import quickstart
from m3dhmr_jax.checkpoints.identity import CONFIG_NAME
from m3dhmr_jax.checkpoints.run_config import config_text, load_config, save_config
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.config_fields import NETWORK_FIELDS
from m3dhmr_jax.errors import UserError

CONFIG = quickstart.get_config()


def test_save_config_round_trip(tmp_path):
    workdir = tmp_path / "run"
    save_config(workdir, CONFIG)
    assert load_config(workdir) == CONFIG
    assert [path.name for path in workdir.iterdir()] == [CONFIG_NAME]


def test_load_config_reads_weights_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": np.ones(1)}, {}, {"config": config_text(CONFIG)})
    assert load_config(path) == CONFIG
    save_weights(path, {"a": np.ones(1)}, {}, {})
    with pytest.raises(UserError, match=path.name):
        load_config(path)


def test_load_config_rejects_folders_without_config(tmp_path):
    with pytest.raises(UserError, match="absent"):
        load_config(tmp_path / "absent")
    with pytest.raises(UserError, match=CONFIG_NAME):
        load_config(tmp_path)


def without(name):
    content = json.loads(config_text(CONFIG))
    *sections, last = name.split(".")
    inner = content
    for section in sections:
        inner = inner[section]
    del inner[last]
    return content


@pytest.mark.parametrize("name", NETWORK_FIELDS)
def test_load_config_names_a_field_that_another_version_lacks(tmp_path, name):
    (tmp_path / CONFIG_NAME).write_text(json.dumps(without(name)))
    with pytest.raises(UserError, match=f"{CONFIG_NAME}.* lacks {name}: .*another version"):
        load_config(tmp_path)


def test_load_config_names_a_field_of_another_version(tmp_path):
    content = json.loads(config_text(CONFIG))
    content["model"] |= {"depth": 3}
    content["augment"] |= {"blur": 2}  # Not part of the network.
    (tmp_path / CONFIG_NAME).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"{CONFIG_NAME}.* has the unknown model\.depth: .*version"
    ):
        load_config(tmp_path)


def test_load_config_says_where_a_missing_hand_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MANO_RIGHT.pkl").touch()
    (tmp_path / "elsewhere").mkdir()
    config = quickstart.get_config()
    config.hand = "MANO_RIGHT.pkl"
    save_config(tmp_path / "run", config)
    assert load_config(tmp_path / "run").hand == "MANO_RIGHT.pkl"
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=rf"run/{CONFIG_NAME}.*hand=MANO_RIGHT\.pkl.*elsewhere/MANO"
    ):
        load_config(tmp_path / "run")


def test_save_config_does_not_replace_a_file_of_others(tmp_path):
    (tmp_path / CONFIG_NAME).write_text('{"mine": 1}')
    with pytest.raises(UserError, match=CONFIG_NAME):
        save_config(tmp_path, CONFIG)
    assert (tmp_path / CONFIG_NAME).read_text() == '{"mine": 1}'


@pytest.mark.parametrize("text", ["", '{"model": ', "[1]", json.dumps({"other": 1})])
def test_load_config_rejects_other_content(tmp_path, text):
    (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises(UserError, match=CONFIG_NAME):
        load_config(tmp_path)
