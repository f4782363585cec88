"""Color augmentation on the device: brightness, contrast, saturation, hue.

All four are affine in the color, so together they are one matrix per crop. Contrast scales about
middle grey, not about the crop's mean: computing the mean costs a second pass over every crop.
Axes: s crop side.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from m3dhmr_jax.types import FloatArray

LUMA = (0.299, 0.587, 0.114)  # Weights of red, green and blue in grey, ITU-R BT.601.


def adjust_color(
    image_01: Float[FloatArray, "s s 3"],
    brightness: Float[FloatArray, ""] | float,
    contrast: Float[FloatArray, ""] | float,
    saturation: Float[FloatArray, ""] | float,
    hue_turns: Float[FloatArray, ""] | float,
) -> Float[Array, "s s 3"]:
    """Scales brightness, distance to middle grey, and distance to own grey; rotates the hue.

    Factors of 1 and a hue of 0 change nothing. The result is clipped to [0, 1].
    """
    image_01 = jnp.asarray(image_01)
    luma = jnp.array(LUMA)
    angle = 2 * math.pi * hue_turns
    # Rotation about the grey diagonal: the matrix is circulant.
    mean = (1 - jnp.cos(angle)) / 3
    cross = jnp.sin(angle) / math.sqrt(3)
    first, second, third = jnp.cos(angle) + mean, mean - cross, mean + cross
    hue = jnp.array([[first, second, third], [third, first, second], [second, third, first]])
    grey = jnp.sum(luma[:, None] * hue, axis=0)
    color = saturation * hue + (1 - saturation) * grey[None, :]
    linear = brightness * contrast * color
    mixed = jnp.einsum("hwc,dc->hwd", image_01, linear, precision="highest")
    return jnp.clip(mixed + brightness * (1 - contrast) * 0.5, 0.0, 1.0)


def jitter_color(
    image_01: Float[FloatArray, "s s 3"],
    key: Key[Array, ""],
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Float[Array, "s s 3"]:
    """`adjust_color` by random amounts: factors from 1 - strength to 1 + strength, hue in turns."""
    swing = jax.random.uniform(key, (4,), minval=-1.0)
    return adjust_color(
        image_01,
        1 + brightness * swing[0],
        1 + contrast * swing[1],
        1 + saturation * swing[2],
        hue * swing[3],
    )
