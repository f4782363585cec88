"""Inverted bottlenecks (Sandler et al., MobileNetV2) in the sizes of MediaPipe's landmark network.

They can start from that network's weights, which have seen many real hands: see
`convert.from_detector`. Unlike there, padding is symmetrical, as everywhere in this package, and
the last of its blocks is left out.

Axes: b batch, h w image, c d channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.models.layers import DepthwiseConv, LinearNorm, PointwiseConv
from m3dhmr_jax.models.resnet import BackboneFeatures


class BlockSize(NamedTuple):
    hidden: int  # Channels between the two pointwise convolutions.
    out: int
    kernel: int  # Side of the depthwise convolution.
    stride: int


STEM_CHANNELS = 24
BLOCKS = (
    BlockSize(24, 16, 3, 1),
    BlockSize(64, 24, 3, 2),
    BlockSize(144, 24, 3, 1),
    BlockSize(144, 40, 5, 2),
    BlockSize(240, 40, 5, 1),
    BlockSize(240, 80, 3, 2),
    BlockSize(480, 80, 3, 1),
    BlockSize(480, 80, 3, 1),
    BlockSize(480, 112, 5, 1),
    BlockSize(672, 112, 5, 1),
    BlockSize(672, 112, 5, 1),
    BlockSize(672, 192, 5, 2),
    BlockSize(1152, 192, 5, 1),
    BlockSize(1152, 192, 5, 1),
)


def relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """ReLU clipped at 6."""
    return jnp.clip(x, 0, 6)


class InvertedBottleneck(nnx.Module):
    """Pointwise to more channels, depthwise, and back; a shortcut where input and output agree.

    A block that would not widen its input begins with the depthwise convolution.
    """

    def __init__(self, c: int, size: BlockSize, *, dtype: DTypeLike, rngs: nnx.Rngs):
        hidden = size.hidden
        self.has_shortcut = c == size.out and size.stride == 1
        self.expand = PointwiseConv(c, hidden, dtype=dtype, rngs=rngs) if hidden != c else None
        self.depthwise = DepthwiseConv(
            hidden, size.kernel, size.stride, use_bias=True, dtype=dtype, rngs=rngs
        )
        self.project = PointwiseConv(hidden, size.out, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out d"]:
        y = x if self.expand is None else relu6(self.expand(x))
        y = self.project(relu6(self.depthwise(y)))
        return x + y if self.has_shortcut else y


class MobileNet(nnx.Module):
    """The blocks; landmarks are read from the encoding, which is all that is left of the image.

    No gradients reach the first `frozen_blocks` blocks: they keep their values, and training is
    faster.
    """

    MAP_STRIDE = 32  # Image pixels per cell of a landmark map.

    def __init__(
        self,
        encoding: int,
        *,
        frozen_blocks: int = 0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.frozen_blocks = frozen_blocks
        self.stem = nnx.Conv(3, STEM_CHANNELS, (3, 3), strides=2, padding=1, dtype=dtype, rngs=rngs)
        widths = (STEM_CHANNELS, *(size.out for size in BLOCKS))
        self.blocks = nnx.List(
            InvertedBottleneck(c, size, dtype=dtype, rngs=rngs)
            for c, size in zip(widths, BLOCKS, strict=False)
        )
        self.encoding_conv = LinearNorm(BLOCKS[-1].out, encoding, dtype=dtype, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w 3"]) -> BackboneFeatures:
        x = relu6(self.stem((image + 1) / 2))  # In 0..1, as MediaPipe's network takes it.
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < self.frozen_blocks:
                x = jax.lax.stop_gradient(x)
        encoding = self.encoding_conv(x)
        return BackboneFeatures(encoding, encoding)
