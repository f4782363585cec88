"""Image layers: convolutions, resampling, and sampling a map at points (eq. 1).

Axes: b batch, h w image, c d channels, n landmarks.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def sample_at(
    features: Float[Array, "b h w c"], landmarks_01: Float[Array, "b n 2"]
) -> Float[Array, "b n c"]:
    """Bilinear sampling, F^e(L^p) of eq. 1; 0 and 1 are the centres of the outermost cells.

    Locations outside are clipped to the border.
    """
    b, h, w, c = features.shape
    x = jnp.clip(landmarks_01[..., 0], 0, 1) * (w - 1)
    y = jnp.clip(landmarks_01[..., 1], 0, 1) * (h - 1)
    weight_x = nnx.relu(1 - jnp.abs(jnp.subtract.outer(x, jnp.arange(w, dtype=x.dtype))))
    weight_y = nnx.relu(1 - jnp.abs(jnp.subtract.outer(y, jnp.arange(h, dtype=y.dtype))))
    # Positions stay in float32: bfloat16 would round them to a third of a cell. The product has one
    # axis for h and w, as LiteRT's converter miscomputes a contraction of two.
    weights = (weight_y[..., :, None] * weight_x[..., None, :]).astype(features.dtype)
    weights = weights.reshape(b, x.shape[1], h * w)
    return jnp.einsum("bnp,bpc->bnc", weights, features.reshape(b, h * w, c))


def upsample_nearest_2x(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Nearest-neighbour up-sampling by two."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def upsample_bilinear_2x(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Bilinear up-sampling by two with aligned corners."""
    rows, columns = (_align_corners_matrix(n).astype(x.dtype) for n in x.shape[1:3])
    return jnp.einsum("uh,vw,bhwc->buvc", rows, columns, x)


def _align_corners_matrix(n: int) -> Float[np.ndarray, "doubled n"]:
    """The matrix that interpolates n values at 2n locations; both ends coincide."""
    locations = np.arange(2 * n) * (n - 1) / (2 * n - 1)
    return np.maximum(1 - np.abs(locations[:, None] - np.arange(n)), 0)


def space_to_depth(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 4*c"]:
    """Moves 2×2 blocks into channels: channel c, row i, column j become channel 4c + 2i + j."""
    b, h, w, c = x.shape
    blocks = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
    return blocks.reshape(b, h // 2, w // 2, 4 * c)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """3×3 max-pooling with stride 2 and one pixel of padding on both sides, as in torchvision."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return nnx.max_pool(padded, (3, 3), strides=(2, 2))


class ConvNorm(nnx.Module):
    """Convolution without bias, symmetrically padded, then batch normalisation."""

    def __init__(
        self,
        c: int,
        d: int,
        size: int = 1,
        stride: int = 1,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            c,
            d,
            (size, size),
            strides=stride,
            padding=size // 2,
            use_bias=False,
            dtype=dtype,
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
        )
        # torchvision's constants; the statistics are float32 for every compute dtype.
        self.norm = nnx.BatchNorm(d, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        return self.norm(self.conv(x))


@functools.partial(jax.jit, static_argnames="stride")  # Traced once per shape: there are dozens.
def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i i 1 c"], stride: int = 1
) -> Float[Array, "b h_out w_out c"]:
    """Depthwise convolution with symmetrical zero padding; i is odd.

    XLA fuses shifted products into one loop; its grouped convolution is 10 to 300 times slower on
    a CPU.
    """
    size, (_, h, w, _) = len(kernel), x.shape
    r = size // 2
    # Without the barrier every product would test whether it reads the padding.
    padded = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0))))
    terms = (
        padded[:, i : i + h : stride, j : j + w : stride] * kernel[None, None, i, j]
        for i in range(size)
        for j in range(size)
    )
    return functools.reduce(operator.add, terms)


class PointwiseConv(nnx.Linear):
    """A 1×1 convolution as a product of two matrices.

    On a CPU its gradient is three times as fast as that of a product with the image's four axes.
    """

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:3], -1)


class LinearNorm(nnx.Module):
    """Dense layer without bias over the last axis, then batch normalisation."""

    def __init__(self, c: int, d: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.linear = nnx.Linear(c, d, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(d, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        rows = self.norm(self.linear(x.reshape(-1, x.shape[-1])))
        return rows.reshape(*x.shape[:-1], -1)


class DepthwiseConv(nnx.Module):
    """A depthwise convolution."""

    def __init__(
        self,
        c: int,
        size: int = 3,
        stride: int = 1,
        *,
        use_bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stride, self.dtype = stride, dtype
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (size, size, 1, c)))
        self.bias = nnx.Param(jnp.zeros(c)) if use_bias else None

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out c"]:
        y = depthwise_conv(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)[None, None, None]
