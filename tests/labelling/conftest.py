"""Rendered photos in three folders, with their truth, and the set that is made of them."""

import shutil
from typing import NamedTuple

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.labelling.run import LabelOptions, label_files
from m3dhmr_jax.labelling.teacher import Teacher
from m3dhmr_jax.predict.run import PredictOptions
from m3dhmr_jax.synthetic.imaging import encode_image
from m3dhmr_jax.synthetic.photos import place_hands, render_photo
from m3dhmr_jax.synthetic.placement import Placement
from m3dhmr_jax.synthetic.recipe import QUICKSTART
from m3dhmr_jax.synthetic.scene import prepare_assets

SIZE_PX = (480, 360)
K = np.array([[450.0, 0, 240], [0, 450, 180], [0, 0, 1]])
# Folder, seed, and side, centre and size of each hand.
PHOTOS = (
    ("one", 1, (("right", (240.0, 180.0), 200.0),)),
    ("one", 2, (("left", (200.0, 170.0), 190.0),)),
    ("one", 16, (("right", (330.0, 190.0), 170.0),)),
    ("two", 2, (("right", (120.0, 180.0), 150.0), ("left", (350.0, 180.0), 150.0))),
    ("three", 5, (("left", (240.0, 180.0), 40.0),)),
)


class Rendered(NamedTuple):
    """The folder, and the true hands of each photo by its path inside of the folder."""

    folder: object
    truth: dict


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    folder, truth = tmp_path_factory.mktemp("rendered"), {}
    assets = prepare_assets(load_builtin())
    for group, seed, hands in PHOTOS:
        rng = np.random.default_rng(seed)
        placements = [Placement(*hand) for hand in hands]
        placed = place_hands(rng, assets, placements, K, SIZE_PX, QUICKSTART)
        photo = render_photo(rng, placed, K, SIZE_PX)
        (folder / group).mkdir(exist_ok=True)
        name = f"{group}/{seed}.jpg"
        (folder / name).write_bytes(encode_image(photo.image, 95))
        truth[name] = placed
    return Rendered(folder, truth)


@pytest.fixture(scope="session")
def teacher(detector):
    return Teacher(load_builtin(), detector)


@pytest.fixture
def options(rendered, monkeypatch):
    """Those that label all photos."""
    monkeypatch.chdir(rendered.folder)
    return LabelOptions(("one", "two", "three"), PredictOptions(intrinsics=K), split=0.4)


@pytest.fixture(scope="session")
def finished_set(rendered, teacher, tmp_path_factory):
    """A set of all photos; tests must not change it."""
    out = tmp_path_factory.mktemp("labelled") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(rendered.folder)
        photos = ("one", "two", "three")
        options = LabelOptions(photos, PredictOptions(intrinsics=K), split=0.4)
        assert label_files(lambda: teacher, options, out) == []
    return out


@pytest.fixture
def copied_set(finished_set, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(finished_set, tmp_path / "set")
