import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import nnx

from m3dhmr_jax.models.layers import (
    ConvNorm,
    DepthwiseConv,
    PointwiseConv,
    max_pool,
    sample_at,
    space_to_depth,
    upsample_bilinear_2x,
    upsample_nearest_2x,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def test_sample_at_returns_cells_at_their_centres(rng):
    features = normal(rng, 2, 4, 6, 3)
    x, y = np.meshgrid(np.arange(6) / 5, np.arange(4) / 3)
    landmarks_01 = jnp.asarray(np.stack([x, y], -1).reshape(-1, 2)[None].repeat(2, 0), jnp.float32)
    cells = sample_at(features, landmarks_01).reshape(2, 4, 6, 3)
    np.testing.assert_allclose(cells, features, atol=1e-5)


def test_sample_at_matches_scipy(rng):
    features = normal(rng, 2, 4, 6, 3)
    landmarks_01 = jnp.asarray(rng.uniform(size=(2, 7, 2)), jnp.float32)
    got = sample_at(features, landmarks_01)
    for b in range(2):
        at = np.asarray(landmarks_01[b, :, 1]) * 3, np.asarray(landmarks_01[b, :, 0]) * 5
        for c in range(3):
            want = scipy.ndimage.map_coordinates(np.asarray(features[b, ..., c]), at, order=1)
            np.testing.assert_allclose(got[b, :, c], want, atol=1e-5)


def test_sample_at_clips_to_the_border(rng):
    features = normal(rng, 1, 4, 6, 3)
    landmarks_01 = jnp.array([[[-0.3, 0.4], [1.7, 0.4], [0.4, -9.0], [0.4, 2.0]]])
    at_border = jnp.array([[[0.0, 0.4], [1.0, 0.4], [0.4, 0.0], [0.4, 1.0]]])
    np.testing.assert_array_equal(sample_at(features, landmarks_01), sample_at(features, at_border))


def test_sample_at_keeps_float32_locations_for_bfloat16_features():
    last = jnp.zeros((1, 2, 32, 1), jnp.bfloat16).at[:, :, 31].set(1)
    landmarks_01 = jnp.array([[[0.973, 0.5]]])  # Column 30.163; in bfloat16 it would be 30.125.
    got = sample_at(last, landmarks_01)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(got[0, 0, 0]), 0.973 * 31 - 30, atol=2e-3)


def test_max_pool_matches_a_loop(rng):
    x = normal(rng, 2, 6, 8, 3) - 10  # All negative: zero padding would show.
    want = np.empty((2, 3, 4, 3))
    for i in range(3):
        for j in range(4):
            rows, columns = slice(max(2 * i - 1, 0), 2 * i + 2), slice(max(2 * j - 1, 0), 2 * j + 2)
            want[:, i, j] = np.asarray(x)[:, rows, columns].max(axis=(1, 2))
    np.testing.assert_allclose(max_pool(x), want, rtol=1e-6)


def test_upsample_nearest_2x_matches_kron(rng):
    x = normal(rng, 2, 3, 5, 4)
    np.testing.assert_array_equal(upsample_nearest_2x(x), np.kron(x, np.ones((1, 2, 2, 1))))


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_conv_norm_matches_a_symmetrically_padded_loop(rng, size, stride):
    layer = ConvNorm(2, 3, size, stride, rngs=nnx.Rngs(0))
    layer.eval()
    x = normal(rng, 1, 8, 8, 2)
    got = layer(x)
    pad = size // 2
    padded = np.pad(np.asarray(x[0]), ((pad, pad), (pad, pad), (0, 0)))
    kernel = np.asarray(layer.conv.kernel[...])
    want = np.empty((8 // stride, 8 // stride, 3))
    for i in range(8 // stride):
        for j in range(8 // stride):
            patch = padded[i * stride : i * stride + size, j * stride : j * stride + size]
            want[i, j] = np.einsum("hwc,hwcd->d", patch, kernel)
    np.testing.assert_allclose(got[0], want / np.sqrt(1 + 1e-5), atol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_conv_matches_grouped_convolution(rng, size, stride):
    layer = DepthwiseConv(3, size, stride, rngs=nnx.Rngs(0))
    x = normal(rng, 2, 6, 8, 3)
    want = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...],
        (stride, stride),
        [(size // 2, size // 2)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    np.testing.assert_allclose(layer(x), want, atol=1e-5)
    low = DepthwiseConv(3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(x)
    assert low.dtype == jnp.bfloat16


def test_depthwise_conv_adds_its_bias(rng):
    layer = DepthwiseConv(3, use_bias=True, rngs=nnx.Rngs(0))
    x = normal(rng, 2, 6, 8, 3)
    without = layer(x)
    layer.bias[...] = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(layer(x) - without, np.broadcast_to([1, 2, 3], x.shape), atol=1e-5)


def test_pointwise_conv_is_a_convolution_of_one_pixel(rng):
    layer = PointwiseConv(3, 4, rngs=nnx.Rngs(0))  # Its bias is zero.
    x = normal(rng, 2, 6, 8, 3)
    want = jnp.einsum("bhwc,cd->bhwd", x, layer.kernel[...])
    np.testing.assert_allclose(layer(x), want, atol=1e-5)


def test_upsample_bilinear_2x_matches_scipy(rng):
    x = normal(rng, 1, 3, 4, 2)
    at = np.meshgrid(np.linspace(0, 2, 6), np.linspace(0, 3, 8), indexing="ij")
    for c in range(2):
        want = scipy.ndimage.map_coordinates(np.asarray(x[0, ..., c]), at, order=1)
        np.testing.assert_allclose(upsample_bilinear_2x(x)[0, ..., c], want, atol=1e-5)


def test_space_to_depth_orders_channels_first():
    x = jnp.arange(16.0).reshape(1, 2, 4, 2)
    got = space_to_depth(x)
    assert got.shape == (1, 1, 2, 8)
    np.testing.assert_array_equal(got[0, 0, 0], [0, 2, 8, 10, 1, 3, 9, 11])
