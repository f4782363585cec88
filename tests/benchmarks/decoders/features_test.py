"""The features that decoders are compared on: those of the network that they name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("grain")
pytest.importorskip("tensorflow_datasets")

from benchmarks.decoders import features
from benchmarks.decoders.__main__ import prepared_in
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.inference import predict
from m3dhmr_jax.models.layers import sample_at

CHUNK = 3


@pytest.fixture(scope="module")
def data(prepared):
    return prepared_in(prepared)


@pytest.fixture(scope="module")
def image_side(weights_file):
    return features.load_image_side(weights_file)


@pytest.fixture(scope="module")
def computed(image_side, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    features.compute(image_side, data, folder, CHUNK)
    return folder


@pytest.fixture
def folder(computed, tmp_path):
    """A copy, to be damaged."""
    for file in computed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def arrays(folder, split):
    found = features.load(folder, split)
    return [*found.features, found.verts, found.angle_rad]


def test_image_features_are_what_the_networks_decoder_reads(tiny_network):
    network = tiny_network
    model = nnx.merge(network.eval_graphdef, network.params, network.stats)
    side = network.image_size
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, side, side, 3)), jnp.float32)
    found = features.image_features(model, image)
    whole = predict(network.eval_graphdef, network.params, network.stats, image)
    verts = model.decoder(sample_at(found.encoding, found.landmarks_01))
    np.testing.assert_allclose(verts, whole.verts, atol=1e-5)
    np.testing.assert_allclose(found.landmarks_01, whole.landmarks_01, atol=1e-6)


def test_compute_keeps_two_training_crops_and_one_test_crop(computed):
    training, test = (features.load(computed, split) for split in ("train", "test"))
    assert training.features.encoding.shape == (9, 2, 2, 2, 8)  # The tenth fills no chunk.
    assert training.features.finest.shape == (9, 2, 16, 16, 4)
    assert test.features.landmarks_01.shape == (7, 1, 21, 2)
    assert test.verts.shape == (7, 1, 778, 3)
    assert {x.dtype for x in training.features} == {np.dtype(np.float16)}
    assert training.verts.dtype == np.float32
    assert np.ptp(training.angle_rad, axis=1).max() > 0
    np.testing.assert_array_equal(test.angle_rad, 0)


def test_compute_resumes(folder, image_side, data):
    expected = arrays(folder, "train"), arrays(folder, "test")
    kept = folder / "train-0000.npz"
    before = kept.stat().st_mtime_ns
    for name in ("train-0001.npz", "train-0002.npz", "test-0002.npz"):
        (folder / name).unlink()
    features.compute(image_side, data, folder, CHUNK)
    assert kept.stat().st_mtime_ns == before
    for split, before in zip(("train", "test"), expected, strict=True):
        for array, other in zip(arrays(folder, split), before, strict=True):
            np.testing.assert_array_equal(array, other)


def test_compute_refuses_the_features_of_other_weights(folder, tiny_network, save, data):
    params = load_tree(tiny_network)
    params["backbone"]["stem"]["conv1"]["conv"]["kernel"] *= 1.001
    other = features.load_image_side(save(params))
    with pytest.raises(UserError, match=r"features are of the weights .* into another folder"):
        features.compute(other, data, folder, CHUNK)


def test_weights_id_ignores_the_decoder(tiny_network, save, image_side):
    params = load_tree(tiny_network)
    params["decoder"]["lifting_matrix"] += 1
    other = features.load_image_side(save(params))
    assert other.weights_id == image_side.weights_id


def load_tree(network):
    """The parameters, to be changed."""
    return jax.tree.map(jnp.array, network.params)


def test_compute_refuses_features_that_the_network_does_not_have(folder, image_side, data):
    file = folder / "test-0002.npz"
    content = dict(np.load(file))
    content["encoding"] = content["encoding"] + np.float16(0.5)
    np.savez(file, **content)
    with pytest.raises(UserError, match=r"test-0002.npz: its features are not those"):
        features.compute(image_side, data, folder, CHUNK)


def test_compute_refuses_other_settings(folder, image_side, data):
    with pytest.raises(UserError, match=r"other settings \(train, chunk\)"):
        features.compute(image_side, data, folder, CHUNK - 1)


def test_load_names_missing_files(folder):
    (folder / "train-0001.npz").unlink()
    with pytest.raises(UserError, match="1 of 3 files of the train split are missing"):
        features.load(folder, "train")


def test_load_without_features(tmp_path):
    with pytest.raises(UserError, match="no such file; compute features"):
        features.load(tmp_path, "train")


def test_load_image_side_refuses_densestack(save, tiny_network):
    path = save(tiny_network.params, **{"model.backbone": "densestack", "model.image_size": 128})
    with pytest.raises(UserError, match="'densestack' must be 'resnet'"):
        features.load_image_side(path)
