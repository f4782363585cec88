import json

import pytest

from m3dhmr_jax.datasets import open_dataset
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic import QUICKSTART
from m3dhmr_jax.synthetic.writer import MANIFEST, manifest

ASKED = {"synthetic_train": 12, "synthetic_test": 6, "recipe": "quickstart", "seed": 3}


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like the synthetic set that is asked for, as far as its settings go."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "training_xyz.json").write_text("[]")
    origin = manifest(12, 6, 3, QUICKSTART, 1, load_builtin())
    (folder / MANIFEST).write_text(json.dumps(origin))
    return folder


def opened(folder, **changes):
    prepared = str(folder.parent / "prepared")
    return open_dataset(load_builtin(), folder=str(folder), prepared=prepared, **ASKED | changes)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"synthetic_train": 13}, "train is 12 there and 13 here"),
        ({"synthetic_test": 5}, "test is 6 there and 5 here"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"recipe": "full"}, "recipe is .* there and .* here"),
    ],
)
def test_a_synthetic_set_of_other_settings_is_refused_with_what_differs(
    folder, changes, difference
):
    with pytest.raises(ValueError, match=f"made from other settings: {difference}. Delete it"):
        opened(folder, **changes)


def test_a_synthetic_set_of_another_hand_is_refused(folder):
    origin = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(origin | {"hand": "0123"}))
    with pytest.raises(ValueError, match="hand is '0123' there and"):
        opened(folder)


@pytest.mark.parametrize("made_synthetically", [True, False])
def test_the_right_set_and_one_that_is_not_synthetic_are_read(folder, made_synthetically):
    if not made_synthetically:
        (folder / MANIFEST).unlink()
    with pytest.raises(FileNotFoundError, match="rgb: no such folder"):  # Past the settings.
        opened(folder, **({} if made_synthetically else {"seed": 4}))


def test_an_unknown_recipe_is_refused(folder):
    with pytest.raises(ValueError, match=r"data\.source\.recipe='easy' must be one of"):
        opened(folder, recipe="easy")
