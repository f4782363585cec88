import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax.models.gather import StaticIndices
from m3dhmr_jax.models.spiral_conv import (
    DynamicSpiralConv,
    SeparableSpiralConv,
    SpiralConv,
    depthwise_spiral_conv,
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


def test_upsample_matches_a_sparse_matrix(rng):
    indices = np.stack([rng.permutation(V)[:3] for _ in range(2 * V)])
    weights = rng.normal(size=(2 * V, 3)).astype(np.float32)  # Rows need not sum to 1.
    matrix = np.zeros((2 * V, V))
    np.put_along_axis(matrix, indices, weights, axis=1)
    x = normal(rng, B, V, C)
    got = upsample(x, indices, weights)
    np.testing.assert_allclose(got, np.einsum("uv,bvc->buc", matrix, x), atol=1e-5)


def test_spiral_conv_matches_a_dense_layer(rng):
    x, kernel, spirals = normal(rng, B, V, C), normal(rng, S, C, D), some_spirals(rng)
    got = spiral_conv(x, spirals, kernel)
    gathered = np.asarray(x)[:, spirals].reshape(B, V, S * C)
    np.testing.assert_allclose(got, gathered @ np.asarray(kernel).reshape(S * C, D), atol=1e-4)


def test_spiral_conv_adds_its_bias(rng):
    layer = SpiralConv(C, D, S, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(float(D))
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    want = spiral_conv(x, spirals, layer.kernel[...]) + jnp.arange(float(D))[None, None]
    np.testing.assert_allclose(layer(x, spirals), want, atol=1e-5)


def test_separable_spiral_conv_matches_einsum(rng):
    layer = SeparableSpiralConv(C, D, S, rngs=nnx.Rngs(0))
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    filtered = np.einsum("bvsc,sc->bvc", np.asarray(x)[:, spirals], layer.depthwise[...])
    want = filtered @ np.asarray(layer.pointwise[...])
    np.testing.assert_allclose(layer(x, spirals), want, atol=1e-4)


def test_dynamic_spiral_conv_matches_eq_5_and_6(rng):
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    attention = nnx.softmax(normal(rng, B, V, K))
    depthwise, depthwise_bias = normal(rng, K, S, C), normal(rng, K, C)
    pointwise, pointwise_bias = normal(rng, K, C, D), normal(rng, K, D)
    parameters = depthwise, depthwise_bias, pointwise, pointwise_bias
    got = dynamic_spiral_conv(x, attention, spirals, *parameters)
    want = np.empty((B, V, D))
    for b in range(B):
        for v in range(V):
            w1, b1, w2, b2 = (np.tensordot(attention[b, v], p, axes=1) for p in parameters)
            spiral = np.asarray(x)[b, spirals[v]]
            want[b, v] = (np.sum(w1 * spiral, axis=0) + b1) @ w2 + b2
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_attention_matches_eq_4(rng):
    layer = DynamicSpiralConv(C, D, S, K, rngs=nnx.Rngs(0))
    x = normal(rng, B, V, C)
    attention = np.asarray(layer.attention(x))
    (w1, b1), (w2, b2) = (
        (np.asarray(linear.kernel[...]), np.asarray(linear.bias[...]))
        for linear in (layer.attn_hidden, layer.attn_logits)
    )
    scores = np.exp(np.maximum(np.asarray(x) @ w1 + b1, 0) @ w2 + b2)
    np.testing.assert_allclose(attention, scores / scores.sum(-1, keepdims=True), atol=1e-5)
    assert (np.ptp(attention.reshape(-1, K), axis=0) > 0.01).all()  # Vertices differ.


def test_attention_of_a_bfloat16_layer_matches_float32(rng):
    """Logits around 20 would have a grid of 0.125 in bfloat16, errors of 6 % after the softmax."""
    full, low = (
        DynamicSpiralConv(C, D, S, K, dtype=dtype, rngs=nnx.Rngs(0))
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    for layer in (full, low):
        layer.attn_logits.bias[...] = jnp.array([20.0, 20.5, 21.0])
    x = normal(rng, B, V, C).astype(jnp.bfloat16)
    want = full.attention(x.astype(jnp.float32))
    np.testing.assert_allclose(low.attention(x), want, atol=1e-5)


@pytest.mark.parametrize("operator", [SpiralConv, SeparableSpiralConv, DynamicSpiralConv])
def test_bfloat16_layer_matches_float32(rng, operator):
    kernels = {"k": K} if operator is DynamicSpiralConv else {}
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    want, got = (
        operator(C, D, S, **kernels, dtype=dtype, rngs=nnx.Rngs(0))(x, spirals)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert got.dtype == jnp.bfloat16
    error = jnp.abs(got.astype(jnp.float32) - want).max()
    assert error < 0.02 * jnp.abs(want).max()


def test_dynamic_spiral_conv_module_applies_its_attention(rng):
    layer = DynamicSpiralConv(C, D, S, K, rngs=nnx.Rngs(0))
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    kernels = layer.depthwise, layer.depthwise_bias, layer.pointwise, layer.pointwise_bias
    want = dynamic_spiral_conv(x, layer.attention(x), spirals, *(p[...] for p in kernels))
    np.testing.assert_allclose(layer(x, spirals), want, atol=1e-6)


def test_dynamic_spiral_conv_ignores_attention_for_equal_kernels(rng):
    layer = DynamicSpiralConv(C, D, S, K, rngs=nnx.Rngs(0))
    layer.depthwise[...] = layer.depthwise[...].at[:].set(layer.depthwise[...][:1])
    layer.pointwise[...] = layer.pointwise[...].at[:].set(layer.pointwise[...][:1])
    x, spirals = normal(rng, B, V, C), some_spirals(rng)
    before = layer(x, spirals)
    layer.attn_logits.bias[...] = jnp.array([5.0, 0.0, -5.0])
    np.testing.assert_allclose(layer(x, spirals), before, atol=1e-5)


def test_initialisation_preserves_the_scale_of_features(rng):
    """The mean of K kernels has 1/K of their variance, which the initialisers compensate."""
    for layer in (
        DynamicSpiralConv(64, 64, 9, 1, rngs=nnx.Rngs(0)),
        DynamicSpiralConv(64, 64, 9, 8, rngs=nnx.Rngs(0)),
        SeparableSpiralConv(64, 64, 9, rngs=nnx.Rngs(0)),
    ):
        x = nnx.relu(normal(rng, 4, 100, 64)) * np.sqrt(2)  # Mean square 1, as after a ReLU.
        spirals = some_spirals(rng, 100, 9)
        out = jax.jit(lambda x, layer=layer, spirals=spirals: layer(x, spirals))(x)
        assert 0.5 < float(jnp.mean(out**2)) < 15


def test_dynamic_spiral_conv_vjp_matches_autodiff(rng):
    """For all arguments; vertices may recur in a spiral."""
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

    def formula(x, attention, w1, b1, w2, b2):
        w1, b1, w2, b2 = (jnp.tensordot(attention, p, axes=1) for p in (w1, b1, w2, b2))
        filtered = jnp.sum(w1 * x[:, spirals], axis=2) + b1
        return jnp.einsum("bvc,bvcd->bvd", filtered, w2) + b2

    def layer(x, attention, *kernels):
        return dynamic_spiral_conv(x, attention, spirals, *kernels)

    def grads(convolve):
        def loss(*arguments):
            return jnp.sum(convolve(*arguments) * target)

        return jax.jit(jax.grad(loss, argnums=tuple(range(6))))(*arguments)

    for got, want in zip(grads(layer), grads(formula), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-3 * float(jnp.abs(want).max()))


def test_depthwise_spiral_conv_rejects_forward_mode(rng):
    x, attention, kernels = normal(rng, B, V, C), jnp.ones((B, V, K)), normal(rng, K, S, C)
    spirals = StaticIndices(some_spirals(rng))
    with pytest.raises(TypeError):
        jax.jacfwd(lambda x: depthwise_spiral_conv(x, attention, kernels, spirals))(x)
