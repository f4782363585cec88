"""Images and a network for the features that decoders are compared on."""

import json

import pytest

from m3dhmr_jax.checkpoints.weights import save_weights


@pytest.fixture(scope="session")
def prepared(freihand_folder, tmp_path_factory):
    """The folder of ten training and seven test images."""
    pytest.importorskip("tensorflow_datasets")
    from tfds_freihand.prepare import prepare

    folder = tmp_path_factory.mktemp("prepared")
    prepare(freihand_folder, folder)
    return folder


@pytest.fixture(scope="session")
def save(tiny_network, tiny_config, tmp_path_factory):
    """Writes a weights file of the tiny network with these parameters and changes of its config."""

    def write(params, **changes):
        path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
        metadata = {"config": json.dumps(tiny_config(**changes).to_dict())}
        save_weights(path, params, tiny_network.stats, metadata)
        return path

    return write


@pytest.fixture(scope="session")
def weights_file(save, tiny_network):
    return save(tiny_network.params)
