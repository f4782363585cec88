import json
import shutil

import pytest

from m3dhmr_jax import datasets
from m3dhmr_jax.datasets import open_dataset, open_mix, prepare_folder
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


@pytest.fixture
def open_prepared(freihand_folder, tmp_path, monkeypatch):
    """Opens the dataset of `tmp_path`/data/set, whose folder is gone, under another folder."""
    monkeypatch.setattr(datasets, "check_hand_fits", lambda *_: None)
    folder = shutil.copytree(freihand_folder, tmp_path / "data" / "set")
    prepare_folder(folder, tmp_path / "prepared")
    shutil.rmtree(folder)

    def opened(folder, **changes):
        settings = {"synthetic_train": 0, "synthetic_test": 0, "recipe": "full", "seed": 0}
        prepared = str(tmp_path / "prepared")
        return open_dataset(
            load_builtin(), folder=str(folder), prepared=prepared, **settings | changes
        )

    return opened


def test_open_dataset_does_not_need_the_folder_again(open_prepared, tmp_path, monkeypatch):
    dataset_dir = tmp_path / "prepared" / "freihand" / "1.0.0"
    assert open_prepared(tmp_path / "data" / "set") == dataset_dir
    monkeypatch.chdir(tmp_path)
    assert open_prepared("data/set") == dataset_dir
    monkeypatch.chdir("/")
    assert open_prepared("moved/data/set") == dataset_dir


@pytest.mark.parametrize("rendered", [0, 12])
def test_open_dataset_rejects_the_prepared_dataset_of_another_folder(
    open_prepared, tmp_path, rendered
):
    """Before it renders one."""
    with pytest.raises(UserError, match=rf"folder=.*/sett: .*prepared from {tmp_path}/data/set"):
        open_prepared(tmp_path / "data" / "sett", synthetic_train=rendered)
    assert not (tmp_path / "data" / "sett").exists()


def test_open_mix_finds_prepared_datasets_with_their_shares(freihand_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "check_hand_fits", lambda *_: None)
    dataset_dir = prepare_folder(freihand_folder, tmp_path / "prepared")
    opened = open_mix(load_builtin(), ((str(tmp_path / "prepared"), 0.3),))
    assert opened == ((dataset_dir, 0.3),)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_mix(load_builtin(), (("~/prepared", 0.3),)) == opened
    assert open_mix(load_builtin(), ()) == ()


@pytest.mark.parametrize(
    ("mix", "named"),
    [
        ((("a", 0.0),), r"'a', 0\.0.*above 0"),
        ((("a", -0.5),), r"'a', -0\.5.*above 0"),
        ((("a", 1.0),), r"'a', 1\.0.*below 1"),
        ((("a", float("nan")),), r"'a', nan"),
        ((("a", 0.6), ("b", 0.5)), r"add up to 1\.1"),
        (("a", 0.3), "'a' must be"),
        ((("a", "b"),), r"'a', 'b'"),
        ((("nowhere/at/all", 0.3),), "no prepared dataset in nowhere/at/all"),
    ],
)
def test_open_mix_rejects_bad_entries(mix, named):
    with pytest.raises(UserError, match=rf"^data\.mix: .*{named}"):
        open_mix(load_builtin(), mix)


def test_open_mix_rejects_a_dataset_of_another_hand(freihand_folder, tmp_path):
    """Whose meshes are noise."""
    prepare_folder(freihand_folder, tmp_path / "prepared")
    with pytest.raises(UserError, match=r"another hand's vertex order"):
        open_mix(load_builtin(), ((str(tmp_path / "prepared"), 0.3),))
