import json

import pytest

from m3dhmr_jax.datasets import open_dataset
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic import QUICKSTART
from m3dhmr_jax.synthetic.writer import MANIFEST, manifest

SETTINGS = {"synthetic_train": 12, "synthetic_test": 6, "recipe": "quickstart", "seed": 3}


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like the synthetic set of these settings."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "training_xyz.json").write_text("[]")
    settings = manifest(12, 6, 3, QUICKSTART, 1, load_builtin())
    (folder / MANIFEST).write_text(json.dumps(settings))
    return folder


def opened(folder, **changes):
    prepared = str(folder.parent / "prepared")
    return open_dataset(load_builtin(), folder=str(folder), prepared=prepared, **SETTINGS | changes)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"synthetic_train": 13}, "train.*12.*13"),
        ({"synthetic_test": 5}, "test.*6.*5"),
        ({"seed": 4}, "seed.*3.*4"),
        ({"recipe": "full"}, "recipe"),
    ],
)
def test_open_dataset_names_settings_that_differ(folder, changes, difference):
    with pytest.raises(UserError, match=f"{folder}.*{difference}"):
        opened(folder, **changes)


def test_open_dataset_rejects_another_hand(folder):
    found = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(found | {"hand": "0123"}))
    with pytest.raises(UserError, match="0123"):
        opened(folder)


@pytest.mark.parametrize("made_synthetically", [True, False])
def test_open_dataset_accepts_same_settings_and_other_folders(folder, made_synthetically):
    if not made_synthetically:
        (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match="rgb"):  # Past the settings.
        opened(folder, **({} if made_synthetically else {"seed": 4}))


def test_open_dataset_rejects_unknown_recipe(folder):
    with pytest.raises(UserError, match="'easy'"):
        opened(folder, recipe="easy")
