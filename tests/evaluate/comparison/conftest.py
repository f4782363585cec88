"""Two untrained networks as weights files, a labelled set, and photos with hands."""

import json

import numpy as np
import pytest

from m3dhmr_jax.builders import create_network
from m3dhmr_jax.checkpoints.run_config import network_text
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.synthetic.imaging import encode_image
from m3dhmr_jax.synthetic.photos import place_hands, render_photo
from m3dhmr_jax.synthetic.placement import Placement
from m3dhmr_jax.synthetic.recipe import QUICKSTART
from m3dhmr_jax.synthetic.scene import prepare_assets
from tests.conftest import fill

SOURCES = ("desk.mp4", "photos/1.jpg", "photos/2.jpg", "desk.mp4")
HANDS = (("right", (120.0, 180.0), 150.0), ("left", (350.0, 180.0), 150.0))


@pytest.fixture(scope="session")
def networks(tiny_config, tmp_path_factory):
    """Paths of two networks that differ only in their parameters."""
    folder, config = tmp_path_factory.mktemp("networks"), tiny_config()
    network = create_network(config, load_builtin(), abstract=True)
    paths = []
    for seed in range(2):
        filled = fill(network, seed)
        paths.append(folder / f"{seed}.safetensors")
        save_weights(paths[-1], filled.params, filled.stats, {"config": network_text(config)})
    return tuple(map(str, paths))


@pytest.fixture(scope="session")
def labelled_set(tmp_path_factory):
    """Four hands for evaluation, of a video and of two photos of a folder."""
    folder, batch = tmp_path_factory.mktemp("mine"), fake_batch(4)
    (folder / "evaluation/rgb").mkdir(parents=True)
    for i, image in enumerate(np.asarray(batch.image)):
        (folder / f"evaluation/rgb/{i:08d}.jpg").write_bytes(encode_image(image, 95))
    columns = {"K": batch.intrinsics, "xyz": batch.joints_m, "verts": batch.verts_m}
    for name, values in (columns | {"scale": np.full(4, 0.03)}).items():
        (folder / f"evaluation_{name}.json").write_text(json.dumps(np.asarray(values).tolist()))
    hands = [{"image": f"evaluation/rgb/{i:08d}.jpg", "source": s} for i, s in enumerate(SOURCES)]
    about = {"settings": {}, "split_by": "source", "counts": {}, "left_out": []}
    (folder / "labels.json").write_text(json.dumps(about | {"hands": hands}))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A photo with a right and a left hand, and one without hands."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(2)
    size_px, k = (480, 360), np.array([[450.0, 0, 240], [0, 450, 180], [0, 0, 1]])
    placements = [Placement(*hand) for hand in HANDS]
    assets = prepare_assets(load_builtin())
    hands = place_hands(rng, assets, placements, k, size_px, QUICKSTART)
    photo = render_photo(rng, hands, k, size_px)
    (folder / "two.jpg").write_bytes(encode_image(photo.image, 95))
    (folder / "none.jpg").write_bytes(encode_image(np.full((90, 120, 3), 128, np.uint8), 95))
    return folder


@pytest.fixture
def fast_detector(detector, monkeypatch):
    """The installed detector is the one that all tests share."""
    monkeypatch.setattr(HandDetector, "load", lambda **_: detector)
