"""A trained network prepared for inference: BatchNorm folded into weights, weights packed.

Axes: b batch, h w image, c d channels.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.models.densestack import DepthwiseNorm, SpaceToDepthConv
from m3dhmr_jax.models.fast.convolutions import Convolution, select_algorithm
from m3dhmr_jax.models.layers import ConvNorm, LinearNorm, depthwise_conv


class Folded(nnx.Module):
    """A linear operation on packed weights, then a bias."""

    def __init__(
        self,
        operation: Callable[[Array, Array], Array],
        weights: Array,
        bias: Float[Array, " d"],
        dtype: DTypeLike,
    ):
        self.operation, self.dtype = operation, dtype
        self.weights, self.bias = nnx.Param(weights.astype(dtype)), nnx.Param(bias.astype(dtype))

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b_out d"]:
        y = self.operation(x.astype(self.dtype), self.weights[...])
        return y + jnp.expand_dims(self.bias[...], range(y.ndim - 1))


@functools.partial(jax.jit, static_argnums=0)
def fold(eval_graphdef: Any, params: Any, stats: Any) -> tuple[Any, Any]:
    """Graph definition and parameters of a network with the same predictions and no statistics.

    For inference only: it contains the current backend's fastest algorithms and cannot be trained.
    """
    model = nnx.merge(eval_graphdef, params, stats)
    folded = nnx.recursive_map(_fold_conv, nnx.recursive_map(_fold_norm, model))
    graphdef, state = nnx.split(folded)
    return graphdef, nnx.to_pure_dict(state)


def _fold_norm(_: Any, node: Any) -> Any:
    """Folds layers that end in a normalisation; only plain convolutions are left after that."""
    if not isinstance(node, ConvNorm | DepthwiseNorm | LinearNorm):
        return node
    norm = node.norm
    scale = jnp.asarray(norm.scale) * jax.lax.rsqrt(norm.var[...] + norm.epsilon)
    bias = jnp.asarray(norm.bias) - norm.mean[...] * scale
    layer = node.linear if isinstance(node, LinearNorm) else node.conv
    dtype = layer.dtype or jnp.float32
    kernel = layer.kernel[...]
    kernel = kernel * jnp.expand_dims(scale, range(kernel.ndim - 1))
    match node:
        case SpaceToDepthConv():  # The same as a 2×2 convolution with stride 2.
            blocks = kernel.reshape(-1, 2, 2, len(bias)).transpose(1, 2, 0, 3)
            return _convolution(blocks, bias, 2, dtype)
        case ConvNorm():
            return _convolution(kernel, bias, node.conv.strides, dtype)
        case DepthwiseNorm():
            return Folded(depthwise_conv, kernel, bias, dtype)
    return Folded(jnp.matmul, kernel, bias, dtype)


def _fold_conv(_: Any, node: Any) -> Any:
    if not isinstance(node, nnx.Conv):
        return node
    kernel = node.kernel[...]
    bias = jnp.zeros(kernel.shape[-1]) if node.bias is None else jnp.asarray(node.bias)
    return _convolution(kernel, bias, node.strides, node.dtype or jnp.float32)


def _convolution(
    kernel: Float[Array, "i j c d"], bias: Float[Array, " d"], stride: Any, dtype: DTypeLike
) -> Folded:
    algorithm = select_algorithm(kernel.shape, stride, dtype, jax.default_backend())
    return Folded(Convolution(algorithm, stride), algorithm.pack_weights(kernel), bias, dtype)
