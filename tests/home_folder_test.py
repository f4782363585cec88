"""Functions of commands take ~ in paths, and never make a folder of that name."""

from pathlib import Path

import pytest

from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.convert.run import convert_file
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate.official import read_predictions, read_truth, write_scores
from m3dhmr_jax.hand import load_mano
from m3dhmr_jax.synthetic import write_dataset
from m3dhmr_jax.synthetic.contact_sheet import write_contact_sheet

prepare_folder = pytest.importorskip("m3dhmr_jax.datasets").prepare_folder
CALLS = {
    "prepare": lambda: prepare_folder(Path("~/none"), Path("~/tfds")),
    "prepare --hand": lambda: prepare_folder(Path("~"), Path("~/tfds"), Path("~/none.pkl")),
    "synthesize": lambda: write_dataset(Path("~/file"), 1, 1, 0, 1),
    "synthesize --sheet": lambda: write_contact_sheet(Path("~/none"), Path("~/sheet.jpg")),
    "convert": lambda: convert_file(Path("~/none.pth"), Path("~/w.safetensors")),
    "convert --out": lambda: convert_file(Path("none.pth"), Path("~/w.npz")),
    "score --gt": lambda: read_truth(Path("~/none")),
    "score --pred": lambda: read_predictions(Path("~/none.json"), 1),
    "score --out": lambda: write_scores(Path("~/scores.csv"), {}),
    "the config's hand": lambda: load_mano("~/none.pkl"),
    "a run": lambda: load_config(Path("~/none")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_paths_start_in_the_home_folder(call, monkeypatch, tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "file").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UserError, match=str(home)):
        call()
    assert not list(elsewhere.iterdir())
