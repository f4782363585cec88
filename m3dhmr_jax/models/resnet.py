"""The image encoder (left half of fig. 2): two stacked hourglasses made of ResNet stages.

Axes: b batch, h w image, y x map, c d e channels, n landmarks. The paper's width is 64.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.models.layers import ConvNorm, max_pool, upsample_nearest_2x


class Stem(nnx.Module):
    """7×7/2 convolution and 3×3/2 max-pooling: a quarter of the image's side."""

    def __init__(self, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(3, width, 7, 2, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h/4 w/4 c"]:
        return max_pool(nnx.relu(self.conv1(image)))


class BasicBlock(nnx.Module):
    """Two 3×3 convolutions around a shortcut (He et al.).

    With `remat` the backward pass keeps only the block's input and recomputes the rest.
    """

    def __init__(
        self, c: int, d: int, stride: int, *, remat: bool, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.remat = remat
        self.conv1 = ConvNorm(c, d, 3, stride, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(d, d, 3, dtype=dtype, rngs=rngs)
        self.downsample = (
            ConvNorm(c, d, 1, stride, dtype=dtype, rngs=rngs) if (c, stride) != (d, 1) else None
        )

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        return nnx.remat(BasicBlock._forward)(self, x) if self.remat else self._forward(x)

    def _forward(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        return nnx.relu(self.conv2(nnx.relu(self.conv1(x))) + shortcut)


class HourglassFeatures(NamedTuple):
    top: Float[Array, "b h w c"]  # At the input's resolution.
    bottom: Float[Array, "b h/8 w/8 8*c"]


class Hourglass(nnx.Module):
    """The four ResNet stages, then a top-down path with skip additions (as in an FPN)."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        *,
        remat: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        widths = [width * 2**i for i in range(len(blocks))]
        stages, c = [], width
        for i, (d, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(BasicBlock(c, d, stride, remat=remat, dtype=dtype, rngs=rngs))
                c = d
            stages.append(nnx.Sequential(*stage))
        self.stages = nnx.List(stages)
        down_up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.lateral = nnx.List(ConvNorm(c, d, dtype=dtype, rngs=rngs) for c, d in down_up)
        self.smooth = nnx.List(ConvNorm(d, d, 3, dtype=dtype, rngs=rngs) for _, d in down_up)

    def __call__(self, x: Float[Array, "b h w c"]) -> HourglassFeatures:
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        bottom = skips.pop()
        x = bottom
        for lateral, smooth in zip(self.lateral, self.smooth, strict=True):
            x = nnx.relu(upsample_nearest_2x(lateral(x)) + skips.pop())
            x = nnx.relu(smooth(x))
        return HourglassFeatures(x, bottom)


class FirstHalfFeatures(NamedTuple):
    top: Float[Array, "b h/4 w/4 c"]  # Output of the first hourglass.
    merged: Float[Array, "b h/4 w/4 c"]  # Input of the second hourglass.


class FirstHalf(nnx.Module):
    """The half that is pre-trained in 2D: stem, first stack, first layer of the second stack."""

    MAP_STRIDE = 4  # Image pixels per cell of a landmark map.

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        *,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem = Stem(width, dtype=dtype, rngs=rngs)
        self.stack1 = Hourglass(blocks, width, remat=remat, dtype=dtype, rngs=rngs)
        self.remap = ConvNorm(width, width, dtype=dtype, rngs=rngs)
        self.merge = ConvNorm(2 * width, width, dtype=dtype, rngs=rngs)

    def features(self, image: Float[Array, "b h w 3"]) -> FirstHalfFeatures:
        stem = self.stem(image)
        top = self.stack1(stem).top
        remapped = nnx.relu(self.remap(top))
        merged = nnx.relu(self.merge(jnp.concatenate([stem, remapped], axis=-1)))
        return FirstHalfFeatures(top, merged)


class BackboneFeatures(NamedTuple):
    encoding: Float[Array, "b h/32 w/32 e"]  # F^e of eq. 1.
    landmark_maps: Float[Array, "b y x n"]


class StackedResNet(FirstHalf):
    """Two hourglasses; the second takes the stem's features and the first one's output."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: int,
        encoding: int,
        landmarks: int,
        *,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(blocks, width, remat=remat, dtype=dtype, rngs=rngs)
        self.stack2 = Hourglass(blocks, width, remat=remat, dtype=dtype, rngs=rngs)
        self.encoding_conv = nnx.Conv(8 * width, encoding, (1, 1), dtype=dtype, rngs=rngs)
        self.landmark_map_conv = nnx.Conv(width, landmarks, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w 3"]) -> BackboneFeatures:
        top, bottom = self.stack2(self.features(image).merged)
        return BackboneFeatures(self.encoding_conv(bottom), self.landmark_map_conv(top))
