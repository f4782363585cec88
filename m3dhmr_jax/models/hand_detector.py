"""Google's palm detector and hand landmark network, MediaPipe Hands "full", for inference.

Zhang et al., "MediaPipe Hands: On-device Real-time Hand Tracking", 2020. The architectures are
those of the published files; predict/detector_install.py converts their weights.

A network's weights are a flat sequence in the order of their use: kernel and bias of a layer, then
the slopes of its PReLU if it has one. Kernels are (height, width, c, d) for convolutions,
(height, width, c) for depthwise ones, and (c, d) for those of one pixel and for linear layers.
Padding is TensorFlow's SAME.

Axes: b batch, h w image, i j kernel, c d channels, p palm candidates, n = 21 landmarks.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.models.hand_detector_outputs import HandLandmarks, PalmCandidates

# Blocks per resolution of the palm detector.
PALM_BLOCKS = 5
# Strides of the landmark network's inverted bottlenecks; the last one has no projection.
BOTTLENECK_STRIDES = (2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1)

Weights = Sequence[Array]
NextWeight = Callable[[], Array]


def detect_palms(weights: Weights, images: UInt8[Array, "b 192 192 3"]) -> PalmCandidates:
    """Candidates for palms in RGB images.

    Residual blocks down to 6 x 6 cells, then two levels up again.
    """
    take = iter(weights).__next__
    x = _prelu(_conv(_to_01(images), take, stride=2), take)
    levels = []
    for level in range(5):
        for block in range(PALM_BLOCKS if level else PALM_BLOCKS - 1):
            x = _palm_block(x, take, stride=2 if level and block == 0 else 1)
        levels.append(x)
    logits, offsets = [], []
    for skip in (levels[3], levels[2]):
        x = _prelu(_pointwise(_upsample_2x(x), take), take) + skip
        x = _palm_block(_palm_block(x, take), take)
        logits.insert(0, _pointwise(x, take).reshape(len(x), -1))
        offsets.insert(0, _pointwise(x, take).reshape(len(x), -1, 18))
    return PalmCandidates(jnp.concatenate(offsets, axis=1), jnp.concatenate(logits, axis=1))


def _palm_block(
    x: Float[Array, "b h w c"], take: NextWeight, stride: int = 1
) -> Float[Array, "b h_out w_out d"]:
    y = _pointwise(_depthwise(x, take, stride), take)
    if stride == 2:
        corners = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
        x = jnp.max(jnp.stack(corners), axis=0)
    missing = y.shape[-1] - x.shape[-1]
    return _prelu(y + jnp.pad(x, [(0, 0)] * 3 + [(0, missing)]), take)


def find_landmarks(weights: Weights, images: UInt8[Array, "b 224 224 3"]) -> HandLandmarks:
    """Landmarks of the hand in each RGB image, in FreiHAND order.

    The hand should be upright, its fingers up, and fill about half of the image. Inverted
    bottlenecks, a mean over the image, and four linear heads.
    """
    take = iter(weights).__next__
    x = _relu6(_conv(_to_01(images), take, stride=2))
    x = _pointwise(_relu6(_depthwise(x, take)), take)
    for stride in BOTTLENECK_STRIDES:
        y = _relu6(_depthwise(_relu6(_pointwise(x, take)), take, stride))
        y = _pointwise(y, take)
        x = x + y if x.shape == y.shape else y
    x = _relu6(_depthwise(_relu6(_pointwise(x, take)), take))
    features = jnp.mean(x, axis=(1, 2))
    right, presence, landmarks, joints = (_linear(features, take) for _ in range(4))
    return HandLandmarks(
        landmarks_px=landmarks.reshape(-1, 21, 3),
        joints_m=joints.reshape(-1, 21, 3),
        presence=jax.nn.sigmoid(presence[:, 0]),
        right_probability=jax.nn.sigmoid(right[:, 0]),
    )


def _to_01(images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return images.astype(jnp.float32) / 255


def _linear(x: Float[Array, "m c"], take: NextWeight) -> Float[Array, "m d"]:
    kernel, bias = take(), take()
    return x @ kernel + bias[None]


def _pointwise(x: Float[Array, "b h w c"], take: NextWeight) -> Float[Array, "b h w d"]:
    b, h, w, c = x.shape
    return _linear(x.reshape(-1, c), take).reshape(b, h, w, -1)


def _conv(x: Float[Array, "b h w c"], take: NextWeight, stride: int) -> Float[Array, "b _ _ d"]:
    kernel, bias = take(), take()
    y = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + bias[None, None, None]


def _depthwise(
    x: Float[Array, "b h w c"], take: NextWeight, stride: int = 1
) -> Float[Array, "b _ _ c"]:
    kernel, bias = take(), take()
    convolve = depthwise_sums if jax.default_backend() == "cpu" else depthwise_native
    return convolve(x, kernel, stride) + bias[None, None, None]


def depthwise_native(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i i c"], stride: int
) -> Float[Array, "b _ _ c"]:
    """Depthwise convolution as the backend implements it; on a CPU 15 times as slow as the sums."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def depthwise_sums(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i i c"], stride: int
) -> Float[Array, "b _ _ c"]:
    """Depthwise convolution as a sum of shifted products, which XLA compiles into one loop."""
    size = len(kernel)
    out = [-(-side // stride) for side in x.shape[1:3]]
    spans = [(n - 1) * stride + 1 for n in out]
    missing = [
        max(span + size - 1 - side, 0) for span, side in zip(spans, x.shape[1:3], strict=True)
    ]
    margins = [(n // 2, n - n // 2) for n in missing]
    # Without the barrier every product would test whether it reads the padding.
    padded = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), *margins, (0, 0)]))
    y = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            window = padded[:, i : i + spans[0] : stride, j : j + spans[1] : stride]
            y = y + window * kernel[i, j][None, None, None]
    return y


def _upsample_2x(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Bilinear up-sampling by two between centres of pixels."""
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear")


def _prelu(x: Float[Array, "b h w c"], take: NextWeight) -> Float[Array, "b h w c"]:
    return jnp.where(x >= 0, x, x * take()[None, None, None])


def _relu6(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    return jnp.clip(x, 0, 6)
