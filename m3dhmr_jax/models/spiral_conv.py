"""Layers on meshes: up-sampling and the three spiral convolutions.

Axes: b batch, c d channels, v u vertices, s spiral, k kernels.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from m3dhmr_jax.models.gather import Rows, sums_by_row, take_rows


def upsample(
    x: Float[Array, "b v c"], indices: Int[np.ndarray, "u 3"], weights: Float[np.ndarray, "u 3"]
) -> Float[Array, "b u c"]:
    """Values on the finer level, each from three vertices of the coarser one."""
    # Three weighted takes: one gather and a sum would write the (b, u, 3, c) tensor to memory.
    first, second, third = (
        take_rows(x, indices[:, i]) * weights[None, :, i, None].astype(x.dtype) for i in range(3)
    )
    return first + second + third


def spiral_conv(
    x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"], kernel: Float[Array, "s c d"]
) -> Float[Array, "b v d"]:
    """SpiralConv++: a dense layer over the values along each vertex's spiral."""
    length, c, d = kernel.shape
    b, v, _ = x.shape
    # Transforming before gathering moves d instead of c numbers for each place of a spiral.
    terms = (x @ kernel.transpose(1, 0, 2).reshape(c, length * d)).reshape(b, v * length, d)
    rows = spirals * length + np.arange(length)
    return jnp.sum(take_rows(terms, rows), axis=2)


def _mixed(mix: Float[Array, "b v k"], kernel: Float[Array, "k c"]) -> Float[Array, "b v c"]:
    # Sums of products, no matrix product: these melt into the loop that uses them.
    terms = (mix[..., k, None] * kernel[k][None, None] for k in range(len(kernel)))
    return functools.reduce(operator.add, terms)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def depthwise_spiral_conv(
    x: Float[Array, "b v c"],
    mix: Float[Array, "b v k"],
    kernels: Float[Array, "k s c"],
    spirals: Rows,
) -> Float[Array, "b v c"]:
    """Sum along each vertex's spiral, weighted by the vertex's own mix of the kernels (eq. 5, 6).

    Written place by place, gather, mix and sum are one loop and nothing of size (b, v, s, c) is
    stored: on a CPU many times faster than a gather and an `einsum`.
    """
    terms = (
        jnp.take(x, spirals.indices[:, s], axis=1) * _mixed(mix, kernels[:, s])
        for s in range(kernels.shape[1])
    )
    return functools.reduce(operator.add, terms)


def _depthwise_forward(x: Array, mix: Array, kernels: Array, spirals: Rows):
    return depthwise_spiral_conv(x, mix, kernels, spirals), (x, mix, kernels)


def _depthwise_backward(spirals: Rows, saved: tuple[Array, Array, Array], slope: Array):
    x, mix, kernels = saved
    (b, v, c), (k, s, _) = x.shape, kernels.shape
    flat_mix, flat_kernels = mix.reshape(b * v, k), kernels.reshape(k, s * c)
    along = slope[:, :, None] * jnp.take(x, spirals.indices, axis=1)
    along = along.reshape(b * v, s * c)
    sent = slope[:, :, None] * (flat_mix @ flat_kernels).reshape(b, v, s, c)
    return (
        sums_by_row(sent, spirals, v),
        (along @ flat_kernels.T).reshape(b, v, k),
        (flat_mix.T @ along).reshape(k, s, c),
    )


depthwise_spiral_conv.defvjp(_depthwise_forward, _depthwise_backward)


def dynamic_spiral_conv(
    x: Float[Array, "b v c"],
    mix: Float[Array, "b v k"],
    spirals: Int[np.ndarray, "v s"],
    depthwise: Float[Array, "k s c"],
    depthwise_bias: Float[Array, "k c"],
    pointwise: Float[Array, "k c d"],
    pointwise_bias: Float[Array, "k d"],
) -> Float[Array, "b v d"]:
    """Depthwise along the spiral, then across channels, kernels mixed per vertex (eq. 5, 6)."""
    k, c, d = pointwise.shape
    filtered = jnp.add(
        depthwise_spiral_conv(x, mix, depthwise, Rows(spirals)), mix @ depthwise_bias
    )
    # Mixing outputs instead of weights: a kernel per vertex would be a (b, v, c, d) tensor.
    outputs = filtered @ pointwise.transpose(1, 0, 2).reshape(c, k * d)
    outputs = outputs.reshape(*filtered.shape[:2], k, d)
    return jnp.einsum("bvk,bvkd->bvd", mix, outputs) + mix @ pointwise_bias


class SpiralConv(nnx.Module):
    """A plain spiral convolution with bias."""

    def __init__(
        self, c: int, d: int, length: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        init = nnx.initializers.lecun_normal(in_axis=(0, 1), out_axis=2)
        self.dtype = dtype
        self.kernel = nnx.Param(init(rngs.params(), (length, c, d)))
        self.bias = nnx.Param(jnp.zeros(d))

    def __call__(
        self, x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"]
    ) -> Float[Array, "b v d"]:
        kernel, bias = self.kernel[...].astype(self.dtype), self.bias[...].astype(self.dtype)
        return spiral_conv(x.astype(self.dtype), spirals, kernel) + bias[None, None]


class SeparableSpiralConv(nnx.Module):
    """Depth-separable spiral convolution of MobRecon: along the spiral, then across channels."""

    def __init__(
        self, c: int, d: int, length: int, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        along = nnx.initializers.variance_scaling(2, "fan_in", "normal", in_axis=0, out_axis=1)
        self.dtype = dtype
        self.depthwise = nnx.Param(along(rngs.params(), (length, c)))
        self.pointwise = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (c, d)))

    def __call__(
        self, x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"]
    ) -> Float[Array, "b v d"]:
        x = x.astype(self.dtype)
        alone = jnp.ones((*x.shape[:2], 1), self.dtype)  # One kernel, so a mix of one.
        depthwise = self.depthwise[...].astype(self.dtype)
        filtered = depthwise_spiral_conv(x, alone, depthwise[None], Rows(spirals))
        return jnp.asarray(filtered) @ self.pointwise[...].astype(self.dtype)


class DynamicSpiralConv(nnx.Module):
    """Dynamic spiral convolution of the paper (eq. 4 to 6) with `k` kernels."""

    def __init__(
        self,
        c: int,
        d: int,
        length: int,
        k: int,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        # The mean of k independent kernels has 1/k of their variance, hence the factors.
        axes = {"in_axis": 1, "out_axis": 2, "batch_axis": 0}
        along = nnx.initializers.variance_scaling(2 * k, "fan_in", "normal", **axes)
        across = nnx.initializers.variance_scaling(k, "fan_in", "normal", **axes)
        self.dtype = dtype
        self.reduce = nnx.Linear(c, c // 2, dtype=dtype, rngs=rngs)
        self.score = nnx.Linear(c // 2, k, dtype=dtype, rngs=rngs)
        self.depthwise = nnx.Param(along(rngs.params(), (k, length, c)))
        self.depthwise_bias = nnx.Param(jnp.zeros((k, c)))
        self.pointwise = nnx.Param(across(rngs.params(), (k, c, d)))
        self.pointwise_bias = nnx.Param(jnp.zeros((k, d)))

    def __call__(
        self, x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"]
    ) -> Float[Array, "b v d"]:
        mix = nnx.softmax(self.score(nnx.relu(self.reduce(x))), axis=-1)
        kernels = (self.depthwise, self.depthwise_bias, self.pointwise, self.pointwise_bias)
        return dynamic_spiral_conv(
            x.astype(self.dtype), mix, spirals, *(p[...].astype(self.dtype) for p in kernels)
        )
