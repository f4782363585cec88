"""The backbone that starts from the hand detector's landmark network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax import cli
from m3dhmr_jax.checkpoints.weights import load_matching, load_weights, names_of
from m3dhmr_jax.convert.from_detector import detector_blocks
from m3dhmr_jax.models import hand_detector
from m3dhmr_jax.models.hand_detector_outputs import DetectorWeights
from m3dhmr_jax.models.mobilenet import BLOCKS, STEM_CHANNELS, MobileNet, relu6
from m3dhmr_jax.predict import detector_weights
from tests.conftest import exit_code


def published_shapes():
    """Shapes of the landmark network's weights up to the last block that is taken over."""
    yield from ((3, 3, 3, STEM_CHANNELS), (STEM_CHANNELS,))
    c = STEM_CHANNELS
    for size in BLOCKS:
        if size.hidden != c:
            yield from ((c, size.hidden), (size.hidden,))
        yield from ((size.kernel, size.kernel, size.hidden), (size.hidden,))
        yield from ((size.hidden, size.out), (size.out,))
        c = size.out


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    arrays = (
        jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) or 1), jnp.float32)
        for shape in published_shapes()
    )
    return DetectorWeights((), tuple(arrays))


def create(frozen_blocks=0):
    return MobileNet(8, frozen_blocks=frozen_blocks, rngs=nnx.Rngs(0))


def split(backbone):
    backbone.eval()
    graphdef, params, stats = nnx.split(backbone, nnx.Param, nnx.BatchStat)
    return graphdef, {"backbone": nnx.to_pure_dict(params)}, stats


def test_blocks_of_the_detector_fill_the_backbone(weights):
    _, params, _ = split(create())
    _, report = load_matching(params, detector_blocks(weights))
    assert not report.unused
    assert not report.wrong_shape
    assert {name.split("/")[1] for name in report.missing} == {"encoding_conv"}


def test_features_are_those_of_the_detector(weights, monkeypatch):
    """With the padding of the published network, which differs where a layer halves the image."""

    def same(x, kernel, stride=1):
        return hand_detector.depthwise_sums(x, kernel[:, :, 0], stride)

    monkeypatch.setattr("m3dhmr_jax.models.layers.depthwise_conv", same)
    graphdef, params, stats = split(create())
    params, _ = load_matching(params, detector_blocks(weights))
    backbone = nnx.merge(graphdef, params["backbone"], stats)
    backbone.stem.padding = "SAME"
    image_01 = jnp.asarray(np.random.default_rng(1).uniform(size=(1, 64, 64, 3)), jnp.float32)
    take = iter(weights.landmarks).__next__
    x = relu6(hand_detector._conv(image_01, take, stride=2))
    got = relu6(backbone.stem(image_01))
    np.testing.assert_allclose(got, x, atol=1e-5)
    for size, block in zip(BLOCKS, backbone.blocks, strict=True):
        y = x if block.expand is None else relu6(hand_detector._pointwise(x, take))
        y = relu6(hand_detector._depthwise(y, take, size.stride))
        y = hand_detector._pointwise(y, take)
        x = x + y if x.shape == y.shape else y
        got = block(got)
        np.testing.assert_allclose(got, x, atol=1e-4)
    assert x.shape == (1, 2, 2, 192)


@pytest.mark.parametrize("frozen_blocks", [0, 3, len(BLOCKS)])
def test_frozen_blocks_have_no_gradient(frozen_blocks):
    graphdef, params, stats = split(create(frozen_blocks))
    image = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.sum(nnx.merge(graphdef, params["backbone"], stats)(image).encoding ** 3)

    moved = {
        name.removeprefix("backbone/")
        for name, leaf in zip(names_of(params), jax.tree.leaves(gradient(params)), strict=True)
        if np.abs(leaf).max() > 0
    }
    assert ("stem/kernel" in moved) == (frozen_blocks == 0)
    for i in range(len(BLOCKS)):
        assert (f"blocks/{i}/depthwise/kernel" in moved) == (i >= frozen_blocks)
    assert "encoding_conv/norm/scale" in moved


def test_convert_writes_the_blocks_of_the_installed_detector(
    weights, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(detector_weights, "load_detector_weights", lambda: weights)
    out = tmp_path / "blocks.safetensors"
    assert exit_code(cli.main, ["convert", "detector", "--out", str(out)]) == 0
    assert f"84 arrays\nWrote {out}" in capsys.readouterr().out
    found = load_weights(out)
    assert "Apache-2.0" in found.metadata["from"]
    np.testing.assert_array_equal(
        found.params["backbone/blocks/1/expand/kernel"], weights.landmarks[6]
    )


def test_convert_refuses_options_of_other_sources_for_the_detector(tmp_path, capsys):
    out = str(tmp_path / "blocks.safetensors")
    assert exit_code(cli.main, ["convert", "detector", "--out", out, "--prefix", "a."]) == 2
    assert "detector is the hand detector" in capsys.readouterr().err
    assert exit_code(cli.main, ["convert", "detector", "--out", out, "--half"]) == 2
