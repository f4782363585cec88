import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from m3dhmr_jax.checkpoints.run_config import NAME, config_text, load_config, save_config
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.errors import UserError

CONFIG = ConfigDict({"model": {"width": 16, "blocks": (2, 2)}, "weights": {}, "epochs": 1.5})


def test_save_config_round_trip(tmp_path):
    workdir = tmp_path / "run"
    save_config(workdir, CONFIG)
    assert load_config(workdir) == CONFIG
    assert [path.name for path in workdir.iterdir()] == [NAME]


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
    with pytest.raises(UserError, match=NAME):
        load_config(tmp_path)


@pytest.mark.parametrize("text", ["", '{"model": ', "[1]", json.dumps({"other": 1})])
def test_load_config_rejects_other_content(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=NAME):
        load_config(tmp_path)
