"""Mesh layers: up-sampling and the three spiral convolutions of table 2.

Axes: b batch, c d channels, v u vertices, s spiral length, k kernels.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from m3dhmr_jax.models.gather import StaticIndices, gather_rows, segment_sum


def upsample(
    x: Float[Array, "b v c"], indices: Int[np.ndarray, "u 3"], weights: Float[np.ndarray, "u 3"]
) -> Float[Array, "b u c"]:
    """Features on the finer level, each a weighted sum of three vertices of the coarser level."""
    # Three weighted gathers: one gather and a sum would write the (b, u, 3, c) tensor to memory.
    first, second, third = (
        gather_rows(x, indices[:, i]) * weights[None, :, i, None].astype(x.dtype) for i in range(3)
    )
    return first + second + third


def spiral_conv(
    x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"], kernel: Float[Array, "s c d"]
) -> Float[Array, "b v d"]:
    """SpiralConv++: a dense layer over the features along each vertex's spiral."""
    length, c, d = kernel.shape
    b, v, _ = x.shape
    # Transforming before gathering moves d instead of c numbers per spiral position.
    terms = (x @ kernel.transpose(1, 0, 2).reshape(c, length * d)).reshape(b, v * length, d)
    rows = spirals * length + np.arange(length)
    return jnp.sum(gather_rows(terms, rows), axis=2)


def _mix_kernels(
    attention: Float[Array, "b v k"], kernels: Float[Array, "k c"]
) -> Float[Array, "b v c"]:
    """Each vertex's weighted sum of the kernels (eq. 5)."""
    # A sum of products instead of a matrix product: XLA fuses it into the loop that uses it.
    terms = (attention[..., k, None] * kernels[k][None, None] for k in range(len(kernels)))
    return functools.reduce(operator.add, terms)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def depthwise_spiral_conv(
    x: Float[Array, "b v c"],
    attention: Float[Array, "b v k"],
    kernels: Float[Array, "k s c"],
    spirals: StaticIndices,
) -> Float[Array, "b v c"]:
    """Sum along each vertex's spiral, weighted by its own mix of the kernels (W1 of eq. 5, 6).

    Written position by position, gather, mix and sum are one loop and nothing of size (b, v, s, c)
    is stored: on a CPU many times faster than a gather and an `einsum`. The hand-written backward
    pass allows reverse-mode differentiation only: `jax.jvp` and `jax.jacfwd` raise TypeError.
    """
    terms = (
        jnp.take(x, spirals.indices[:, s], axis=1) * _mix_kernels(attention, kernels[:, s])
        for s in range(kernels.shape[1])
    )
    return functools.reduce(operator.add, terms)


def _depthwise_fwd(x: Array, attention: Array, kernels: Array, spirals: StaticIndices):
    return depthwise_spiral_conv(x, attention, kernels, spirals), (x, attention, kernels)


def _depthwise_bwd(spirals: StaticIndices, saved: tuple[Array, Array, Array], grad_out: Array):
    x, attention, kernels = saved
    (b, v, c), (k, s, _) = x.shape, kernels.shape
    flat_attention, flat_kernels = attention.reshape(b * v, k), kernels.reshape(k, s * c)
    grad_kernel_terms = grad_out[:, :, None] * jnp.take(x, spirals.indices, axis=1)
    grad_kernel_terms = grad_kernel_terms.reshape(b * v, s * c)
    grad_x_terms = grad_out[:, :, None] * (flat_attention @ flat_kernels).reshape(b, v, s, c)
    return (
        segment_sum(grad_x_terms, spirals, v),
        (grad_kernel_terms @ flat_kernels.T).reshape(b, v, k),
        (flat_attention.T @ grad_kernel_terms).reshape(k, s, c),
    )


depthwise_spiral_conv.defvjp(_depthwise_fwd, _depthwise_bwd)


def dynamic_spiral_conv(
    x: Float[Array, "b v c"],
    attention: Float[Array, "b v k"],
    spirals: Int[np.ndarray, "v s"],
    depthwise: Float[Array, "k s c"],
    depthwise_bias: Float[Array, "k c"],
    pointwise: Float[Array, "k c d"],
    pointwise_bias: Float[Array, "k d"],
) -> Float[Array, "b v d"]:
    """Eq. 6: depthwise along the spiral, then across channels, with the mixed kernels of eq. 5."""
    k, c, d = pointwise.shape
    filtered = jnp.add(
        depthwise_spiral_conv(x, attention, depthwise, StaticIndices(spirals)),
        attention @ depthwise_bias,
    )
    # Mixing outputs instead of weights: a kernel per vertex would be a (b, v, c, d) tensor.
    outputs = filtered @ pointwise.transpose(1, 0, 2).reshape(c, k * d)
    outputs = outputs.reshape(*filtered.shape[:2], k, d)
    return jnp.einsum("bvk,bvkd->bvd", attention, outputs) + attention @ pointwise_bias


class SpiralConv(nnx.Module):
    """Spiral convolution with bias (SpiralConv++)."""

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
        init = nnx.initializers.variance_scaling(2, "fan_in", "normal", in_axis=0, out_axis=1)
        self.dtype = dtype
        self.depthwise = nnx.Param(init(rngs.params(), (length, c)))
        self.pointwise = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (c, d)))

    def __call__(
        self, x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"]
    ) -> Float[Array, "b v d"]:
        x = x.astype(self.dtype)
        attention = jnp.ones((*x.shape[:2], 1), self.dtype)  # A single kernel.
        depthwise = self.depthwise[...].astype(self.dtype)
        filtered = depthwise_spiral_conv(x, attention, depthwise[None], StaticIndices(spirals))
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
        depthwise_init = nnx.initializers.variance_scaling(2 * k, "fan_in", "normal", **axes)
        pointwise_init = nnx.initializers.variance_scaling(k, "fan_in", "normal", **axes)
        self.dtype = dtype
        # In float32 for every dtype: the softmax amplifies the rounding of its logits.
        self.attn_hidden = nnx.Linear(c, c // 2, dtype=jnp.float32, rngs=rngs)
        self.attn_logits = nnx.Linear(c // 2, k, dtype=jnp.float32, rngs=rngs)
        self.depthwise = nnx.Param(depthwise_init(rngs.params(), (k, length, c)))
        self.depthwise_bias = nnx.Param(jnp.zeros((k, c)))
        self.pointwise = nnx.Param(pointwise_init(rngs.params(), (k, c, d)))
        self.pointwise_bias = nnx.Param(jnp.zeros((k, d)))

    def attention(self, x: Float[Array, "b v c"]) -> Float[Array, "b v k"]:
        """Attention weights pi of eq. 4: per vertex, positive, with sum 1."""
        return nnx.softmax(self.attn_logits(nnx.relu(self.attn_hidden(x))), axis=-1)

    def __call__(
        self, x: Float[Array, "b v c"], spirals: Int[np.ndarray, "v s"]
    ) -> Float[Array, "b v d"]:
        kernels = (self.depthwise, self.depthwise_bias, self.pointwise, self.pointwise_bias)
        return dynamic_spiral_conv(
            x.astype(self.dtype),
            self.attention(x).astype(self.dtype),
            spirals,
            *(p[...].astype(self.dtype) for p in kernels),
        )
