"""MobRecon's DenseStack: two hourglasses of densely connected, depth-separable convolutions.

Axes: b batch, h w image, c d channels. MobRecon's width is 64.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.models.layers import (
    ConvNorm,
    DepthwiseConv,
    LinearNorm,
    space_to_depth,
    upsample_bilinear_2x,
    upsample_nearest_2x,
)
from m3dhmr_jax.models.resnet import BackboneFeatures

STACK_CHANNELS = 24  # Between the two stacks, at any width.


def relu4(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """ReLU clipped at 4, the activation of MobRecon's dense layers."""
    return jnp.clip(x, 0, 4)


class DepthwiseNorm(nnx.Module):
    """Depthwise 3×3 convolution, then batch normalisation."""

    def __init__(self, c: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv = DepthwiseConv(c, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(c, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return self.norm(self.conv(x))


class SeparableConvBlock(nnx.Module):
    """Depthwise convolutions, then a pointwise one; a shortcut where the widths agree."""

    def __init__(self, c: int, d: int, depth: int = 1, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.depthwise = nnx.List(DepthwiseNorm(c, dtype=dtype, rngs=rngs) for _ in range(depth))
        self.pointwise = ConvNorm(c, d, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        y = x
        for layer in self.depthwise:
            y = nnx.relu(layer(y))
        y = nnx.relu(self.pointwise(y))
        return x + y if x.shape == y.shape else y


class SqueezeExcite(nnx.Module):
    """Squeeze and excitation: channels reweighted by their global means (Hu et al.)."""

    def __init__(self, c: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        hidden = min(c // 2, 256)
        self.fc1 = LinearNorm(c, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = LinearNorm(hidden, c, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        weights = nnx.sigmoid(self.fc2(relu4(self.fc1(x.mean(axis=(1, 2))))))
        return x * weights[:, None, None]


class DenseBlock(nnx.Module):
    """Blocks that each take the input and the outputs of all earlier blocks, concatenated."""

    def __init__(self, c: int, widths: tuple[int, ...], *, dtype: DTypeLike, rngs: nnx.Rngs):
        blocks = []
        for d in widths:
            blocks.append(SeparableConvBlock(c, d, dtype=dtype, rngs=rngs))
            c += d
        self.blocks = nnx.List(blocks)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """The input and all outputs, concatenated."""
        for block in self.blocks:
            x = jnp.concatenate([x, block(x)], axis=-1)
        return x


class DenseFeatures(NamedTuple):
    top: Float[Array, "b h/2 w/2 c"]
    bottom: Float[Array, "b h/8 w/8 16*c"]


class DenseHourglass(nnx.Module):
    """Three dense blocks down to an eighth of the side, then back up to half of it.

    A `deep` hourglass has two more blocks at the bottom, which drop their input from their output.
    """

    def __init__(self, width: int, deep: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        w = width

        def dense(c: int, *widths: int) -> DenseBlock:
            return DenseBlock(c, widths, dtype=dtype, rngs=rngs)

        def excite(c: int) -> SqueezeExcite:
            return SqueezeExcite(c, dtype=dtype, rngs=rngs)

        def reduce_block(c: int, d: int, e: int) -> nnx.Sequential:
            return nnx.Sequential(
                SeparableConvBlock(c, d, dtype=dtype, rngs=rngs),
                SeparableConvBlock(d, e, depth=2, dtype=dtype, rngs=rngs),
                excite(e),
            )

        third = [dense(8 * w, *[2 * w] * 4), *([excite(16 * w)] if deep else [])]
        self.down = nnx.List(
            [
                nnx.Sequential(dense(2 * w, w, w), excite(4 * w)),
                nnx.Sequential(dense(4 * w, *[w] * 4), excite(8 * w)),
                nnx.Sequential(*third),
            ]
        )
        self.bottom = nnx.List(dense(16 * w, 12 * w, 4 * w) for _ in range(2 if deep else 0))
        self.up = nnx.List(
            [
                reduce_block(16 * w, 8 * w, 8 * w),
                reduce_block(8 * w, 4 * w, 4 * w),
                reduce_block(4 * w, 4 * w, STACK_CHANNELS),
            ]
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> DenseFeatures:
        skips = []
        for stage in self.down:
            x = nnx.avg_pool(stage(x), (2, 2), strides=(2, 2))
            skips.append(x)
        for block in self.bottom:
            x = block(x)[..., x.shape[-1] :]
        bottom = x
        first, second, last = self.up
        x = upsample_nearest_2x(first(x)) + skips[1]
        x = upsample_nearest_2x(second(x)) + skips[0]
        return DenseFeatures(last(x), bottom)


class SpaceToDepthConv(ConvNorm):
    """2×2 blocks into channels, then a 1×1 convolution."""

    def __init__(self, c: int, d: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        super().__init__(4 * c, d, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 d"]:
        return super().__call__(space_to_depth(x))


class DenseStem(nnx.Module):
    """To a quarter of the side: convolution with stride 2, then space-to-depth."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(3, width, 3, 2, dtype=dtype, rngs=rngs)
        self.block = SeparableConvBlock(width, 2 * width, dtype=dtype, rngs=rngs)
        self.space_to_depth = SpaceToDepthConv(2 * width, 2 * width, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h/4 w/4 c"]:
        x = self.block(nnx.relu(self.conv1(image)))
        return nnx.relu(self.space_to_depth(x))


class DenseStack(nnx.Module):
    """Two hourglasses; the second takes the stem's features and the first one's output.

    Layers that MobRecon's code defines in its first stack but never calls are omitted.
    """

    MAP_STRIDE = 8  # Image pixels per cell of a landmark map.

    def __init__(
        self,
        width: int,
        encoding: int,
        landmarks: int,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem = DenseStem(width, dtype=dtype, rngs=rngs)
        self.stack1 = DenseHourglass(width, deep=False, dtype=dtype, rngs=rngs)
        self.remap = ConvNorm(STACK_CHANNELS, STACK_CHANNELS, dtype=dtype, rngs=rngs)
        self.merge = ConvNorm(STACK_CHANNELS + 2 * width, 2 * width, dtype=dtype, rngs=rngs)
        self.stack2 = DenseHourglass(width, deep=True, dtype=dtype, rngs=rngs)
        self.encoding_conv, self.landmark_map_conv = (
            nnx.Conv(c, d, (1, 1), use_bias=False, dtype=dtype, rngs=rngs)
            for c, d in ((16 * width, encoding), (STACK_CHANNELS, landmarks))
        )

    def __call__(self, image: Float[Array, "b h w 3"]) -> BackboneFeatures:
        stem = self.stem(image)
        first = nnx.relu(self.remap(upsample_bilinear_2x(self.stack1(stem).top)))
        merged = nnx.relu(self.merge(jnp.concatenate([first, stem], axis=-1)))
        top, bottom = self.stack2(merged)
        return BackboneFeatures(self.encoding_conv(bottom), self.landmark_map_conv(top))
