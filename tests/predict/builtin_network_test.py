"""The built-in network: by its name, from a weights file in half precision, with its config."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from m3dhmr_jax import HandMeshPredictor, cli
from m3dhmr_jax.checkpoints import builtin
from m3dhmr_jax.checkpoints.run_config import load_config, network_text
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.commands import image_options
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.predict.predictor import load_predictor
from tests.conftest import exit_code

MAX_BYTES = 5_000_000
BOX = (30, 20, 80, 90)


@pytest.fixture
def small(tiny_network, tiny_config, tmp_path, monkeypatch):
    """A tiny network takes the place of the built-in one."""
    path = tmp_path / "networks" / "small.safetensors"
    metadata = {"config": network_text(tiny_config())}
    save_weights(path, tiny_network.params, tiny_network.stats, metadata, half=True)
    monkeypatch.setattr(builtin, "BUILTIN_NETWORK", path)
    return path


@pytest.fixture
def without_detector(monkeypatch, tmp_path):
    monkeypatch.setenv("M3DHMR_DATA_DIR", str(tmp_path / "empty"))


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (160, 140, 3), np.uint8)


def test_it_is_that_of_its_weights_file(small, without_detector):
    named, from_file = HandMeshPredictor("network"), HandMeshPredictor.from_checkpoint(small)
    assert named.weights_sha256 == from_file.weights_sha256
    hands, expected = (each(image(), BOX, "right") for each in (named, from_file))
    assert hands.method == "network"
    np.testing.assert_array_equal(hands.verts_m, expected.verts_m)


def test_its_half_precision_hardly_changes_the_mesh(small, tiny_network, without_detector):
    net = tiny_network
    network = JaxNetwork(net, load_builtin(), net.params, net.stats)
    full = HandMeshPredictor(NetworkMethod(network))
    expected = full(image(), BOX, "right")
    hands = HandMeshPredictor("network")(image(), BOX, "right")
    relative_m = [x.verts_m - x.root_m[:, None] for x in (hands, expected)]
    extent_m = np.ptp(relative_m[1], axis=1).max()
    assert np.abs(relative_m[0] - relative_m[1]).mean() < 0.01 * extent_m
    assert (hands.verts_m != expected.verts_m).any()


def test_it_takes_the_hands_that_the_detector_finds(small, detector_weights):
    predictor = HandMeshPredictor("network")
    assert isinstance(predictor._detector, HandDetector)
    assert predictor(np.zeros((64, 64, 3), np.uint8)).handedness == ()


def test_without_a_detector_hands_need_boxes(small, without_detector):
    with pytest.raises(UserError, match="m3dhmr detector install"):
        HandMeshPredictor("network")(image())


def test_an_unknown_method_is_named():
    with pytest.raises(UserError, match=r"'networks' must be 'fit' or 'network'"):
        HandMeshPredictor("networks")


def test_a_package_without_it_says_so(small, capsys):
    small.unlink()
    with pytest.raises(UserError, match=rf"{re.escape(str(small))}: no such file.*--checkpoint"):
        HandMeshPredictor("network")


def test_choices_are_the_methods():
    assert (FitMethod.name, NetworkMethod.name) == image_options.METHODS


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("runs/mine", None, "network"), r"--method network and --checkpoint runs/mine"),
        (("runs/mine", None, "fit"), r"--method fit and --checkpoint runs/mine"),
        ((None, Path("MANO_RIGHT.pkl"), "network"), r"--hand MANO_RIGHT\.pkl is for the fit"),
    ],
)
def test_methods_that_exclude_each_other_are_rejected(arguments, text):
    with pytest.raises(UserError, match=text):
        load_predictor(*arguments)


def test_predict_uses_it(small, without_detector, tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("one.png", image())
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\none.png,30,20,80,90\n")
    command = ["predict", "one.png", "--method=network", "--boxes=boxes.csv", "--out=out"]
    assert exit_code(cli.main, command) == 0
    (line,) = (tmp_path / "out/hands.jsonl").read_text().splitlines()
    assert json.loads(line)["method"] == "network"


def test_it_is_small_and_of_the_built_in_hand():
    if not builtin.BUILTIN_NETWORK.is_file():
        pytest.skip(f"no {builtin.BUILTIN_NETWORK}")
    assert builtin.BUILTIN_NETWORK.stat().st_size <= MAX_BYTES
    config = load_config(builtin.BUILTIN_NETWORK)
    assert (config.hand, config.model.hierarchy) == ("", "")
