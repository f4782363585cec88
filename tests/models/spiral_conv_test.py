import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax.models.spiral_conv import (
    DynamicSpiralConv,
    SeparableSpiralConv,
    SpiralConv,
    dynamic_spiral_conv,
    spiral_conv,
    upsample,
)

V, B, C, D, S, K = 12, 3, 8, 5, 4, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def some_spirals(rng, vertices=V, length=S):
    return np.stack([rng.permutation(vertices)[:length] for _ in range(vertices)])


def test_upsample_is_a_matrix_with_three_entries_per_row(rng):
    indices = np.stack([rng.permutation(V)[:3] for _ in range(2 * V)])
    weights = rng.normal(size=(2 * V, 3)).astype(np.float32)  # Rows need not sum to 1.
    matrix = np.zeros((2 * V, V))
    np.put_along_axis(matrix, indices, weights, axis=1)
    x = normal(rng, B, V, C)
    got = upsample(x, indices, weights)
    np.testing.assert_allclose(got, np.einsum("uv,bvc->buc", matrix, x), atol=1e-5)


def test_spiral_conv_is_a_dense_layer_on_what_a_spiral_gathers(rng):
    x, kernel, spirals = normal(rng, B, V, C), normal(rng, S, C, D), some_spirals(rng)
    got = spiral_conv(x, spirals, kernel)
    gathered = np.asarray(x)[:, spirals].reshape(B, V, S * C)
    np.testing.assert_allclose(got, gathered @ np.asarray(kernel).reshape(S * C, D), atol=1e-4)


def test_spiral_conv_module_adds_its_bias(rng):
    layer = SpiralConv(C, D, S, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(float(D))
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    want = spiral_conv(x, spirals, layer.kernel[...]) + jnp.arange(float(D))[None, None]
    np.testing.assert_allclose(layer(x, spirals), want, atol=1e-5)


def test_separable_spiral_conv_filters_each_channel_then_mixes_channels(rng):
    layer = SeparableSpiralConv(C, D, S, rngs=nnx.Rngs(0))
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    filtered = np.einsum("bvsc,sc->bvc", np.asarray(x)[:, spirals], layer.depthwise[...])
    want = filtered @ np.asarray(layer.pointwise[...])
    np.testing.assert_allclose(layer(x, spirals), want, atol=1e-4)


def test_dynamic_spiral_conv_is_equations_5_and_6_vertex_by_vertex(rng):
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    mix = nnx.softmax(normal(rng, B, V, K))
    depthwise, depthwise_bias = normal(rng, K, S, C), normal(rng, K, C)
    pointwise, pointwise_bias = normal(rng, K, C, D), normal(rng, K, D)
    parameters = depthwise, depthwise_bias, pointwise, pointwise_bias
    got = dynamic_spiral_conv(x, mix, spirals, *parameters)
    want = np.empty((B, V, D))
    for b in range(B):
        for v in range(V):
            w1, b1, w2, b2 = (np.tensordot(mix[b, v], p, axes=1) for p in parameters)
            along = np.asarray(x)[b, spirals[v]]
            want[b, v] = (np.sum(w1 * along, axis=0) + b1) @ w2 + b2
    np.testing.assert_allclose(got, want, atol=1e-4)


def recorded_mix(layer, x, spirals, monkeypatch):
    """The mixing weights that a layer hands to the convolution."""
    seen = []

    def convolve(x, mix, *rest):
        seen.append(mix)
        return dynamic_spiral_conv(x, mix, *rest)

    monkeypatch.setattr("m3dhmr_jax.models.spiral_conv.dynamic_spiral_conv", convolve)
    layer(x, spirals)
    return seen[0]


def test_every_vertex_mixes_the_kernels_by_its_own_shares(rng, monkeypatch):
    layer = DynamicSpiralConv(C, D, S, K, rngs=nnx.Rngs(0))
    x = normal(rng, B, V, C)
    mix = np.asarray(recorded_mix(layer, x, some_spirals(rng), monkeypatch))
    assert mix.shape == (B, V, K)
    np.testing.assert_allclose(mix.sum(axis=-1), 1, atol=1e-6)
    assert (mix > 0).all()
    assert (np.ptp(mix.reshape(-1, K), axis=0) > 0.01).all()
    (w1, b1), (w2, b2) = (
        (np.asarray(linear.kernel[...]), np.asarray(linear.bias[...]))
        for linear in (layer.reduce, layer.score)
    )
    scores = np.exp(np.maximum(np.asarray(x) @ w1 + b1, 0) @ w2 + b2)
    np.testing.assert_allclose(mix, scores / scores.sum(-1, keepdims=True), atol=1e-5)


def test_alike_kernels_make_the_mix_irrelevant(rng):
    layer = DynamicSpiralConv(C, D, S, K, rngs=nnx.Rngs(0))
    layer.depthwise[...] = layer.depthwise[...].at[:].set(layer.depthwise[...][:1])
    layer.pointwise[...] = layer.pointwise[...].at[:].set(layer.pointwise[...][:1])
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    before = layer(x, spirals)
    layer.score.bias[...] = jnp.array([5.0, 0.0, -5.0])
    np.testing.assert_allclose(layer(x, spirals), before, atol=1e-5)


def test_a_fresh_layer_neither_drowns_nor_blows_up_its_input(rng):
    """The mean of K kernels has 1/K of their variance, which the first values make up for."""
    for layer in (
        DynamicSpiralConv(64, 64, 9, 1, rngs=nnx.Rngs(0)),
        DynamicSpiralConv(64, 64, 9, 8, rngs=nnx.Rngs(0)),
        SeparableSpiralConv(64, 64, 9, rngs=nnx.Rngs(0)),
    ):
        x = nnx.relu(normal(rng, 4, 100, 64)) * np.sqrt(2)  # Mean square 1, as after a ReLU.
        out = layer(x, some_spirals(rng, 100, 9))
        assert 0.5 < float(jnp.mean(out**2)) < 15


def test_half_precision_reaches_every_spiral_layer(rng):
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    for make in (
        lambda dtype: SpiralConv(C, D, S, dtype=dtype, rngs=nnx.Rngs(0)),
        lambda dtype: SeparableSpiralConv(C, D, S, dtype=dtype, rngs=nnx.Rngs(0)),
        lambda dtype: DynamicSpiralConv(C, D, S, K, dtype=dtype, rngs=nnx.Rngs(0)),
    ):
        short, full = make(jnp.bfloat16)(x, spirals), make(jnp.float32)(x, spirals)
        assert short.dtype == jnp.bfloat16
        np.testing.assert_allclose(short.astype(jnp.float32), full, atol=0.2)


def test_slopes_written_by_hand_are_those_of_the_formula(rng):
    """For everything that is learned or passed on; vertices may recur in a spiral."""
    spirals = rng.integers(0, V, (V, S))
    arguments = (
        normal(rng, B, V, C),
        nnx.softmax(normal(rng, B, V, K)),
        normal(rng, K, S, C),
        normal(rng, K, C),
        normal(rng, K, C, D),
        normal(rng, K, D),
    )
    target = normal(rng, B, V, D)

    def formula(x, mix, w1, b1, w2, b2):
        w1, b1, w2, b2 = (jnp.tensordot(mix, p, axes=1) for p in (w1, b1, w2, b2))
        filtered = jnp.sum(w1 * x[:, spirals], axis=2) + b1
        return jnp.einsum("bvc,bvcd->bvd", filtered, w2) + b2

    def layer(x, mix, *kernels):
        return dynamic_spiral_conv(x, mix, spirals, *kernels)

    def slopes(convolve):
        def loss(*arguments):
            return jnp.sum(convolve(*arguments) * target)

        return jax.jit(jax.grad(loss, argnums=tuple(range(6))))(*arguments)

    for got, want in zip(slopes(layer), slopes(formula), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-3 * float(jnp.abs(want).max()))
