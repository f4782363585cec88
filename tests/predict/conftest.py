import cv2
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor


@pytest.fixture
def images(tmp_path):
    """Ten images in a folder and its subfolder, a text file, and a corrupted image."""
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for i in range(10):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        pixels = cv2.resize(coarse, (90, 60 + i))
        assert cv2.imwrite(str(folder / ("more" if i % 3 else ".") / f"{i}.png"), pixels)
    (folder / "notes.txt").write_text("not an image")
    (folder / "broken.jpg").write_text("not an image")
    return folder


@pytest.fixture(scope="session")
def predictor(tiny_network):
    """A predictor with an untrained network and without a detector."""
    net = tiny_network
    network = JaxNetwork(net, load_builtin(), net.params, net.stats)
    return HandMeshPredictor(NetworkMethod(network))
