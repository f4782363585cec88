"""Crops of an image on the device: rotated rectangles, resampled.

Pixel centres are on integers and the rectangle's centre falls on `size / 2`, as in published
implementations; prediction crops alike. A positive angle rotates the image's content
counter-clockwise on the screen.
Axes: h w image, s crop side, c channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from m3dhmr_jax.camera.pinhole import invert_affine
from m3dhmr_jax.types import FloatArray


def crop_from_box(
    centre_px: Float[FloatArray, "2"],
    box_wh_px: Float[FloatArray, "2"],
    crop_wh_px: Float[FloatArray, "2"],
    angle_rad: Float[FloatArray, ""] | float,
) -> Float[Array, "2 3"]:
    """Image pixels to crop pixels for the rectangle of size `box_wh_px` around `centre_px`.

    `crop = crop_wh / 2 + diag(crop_wh / box_wh) R(-angle) (image - centre)`.
    """
    cosine, sine = jnp.cos(angle_rad), jnp.sin(angle_rad)
    zoom = jnp.asarray(crop_wh_px) / box_wh_px
    linear = zoom[:, None] * jnp.array([[cosine, sine], [-sine, cosine]])
    offset = crop_wh_px / 2 - (linear[:, 0] * centre_px[0] + linear[:, 1] * centre_px[1])
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def max_shift(
    box_wh_px: Float[FloatArray, "2"], content_wh_px: Float[FloatArray, "2"]
) -> Float[Array, "2"]:
    """How far a box may move along each axis before its centred content reaches the border."""
    return jnp.maximum((jnp.asarray(box_wh_px) - content_wh_px) / 2, 0.0)


def warp(
    image: UInt8[FloatArray, "h w c"], crop_from_img: Float[FloatArray, "2 3"], size: int
) -> Float[Array, "s s c"]:
    """The crop in [0, 1], sampled bilinearly; black outside the image.

    Four pixels are read per sample: crops that shrink the image more than twofold alias, so images
    much larger than FreiHAND's should be reduced first.
    """
    height, width, channels = image.shape
    # A border of zeros, and coordinates clipped to it, avoid bounds checks per pixel.
    stride = width + 3
    pixels = jnp.pad(jnp.asarray(image), ((1, 2), (1, 2), (0, 0))).reshape(-1, channels)
    to_img = invert_affine(crop_from_img)
    across, down = jnp.arange(size, dtype=jnp.float32)[None, :], jnp.arange(size)[:, None]
    x = jnp.clip(to_img[0, 0] * across + to_img[0, 1] * down + to_img[0, 2], -1, width)
    y = jnp.clip(to_img[1, 0] * across + to_img[1, 1] * down + to_img[1, 2], -1, height)
    left, top = jnp.floor(x), jnp.floor(y)
    index = ((top + 1) * stride + left + 1).astype(jnp.int32)
    wx, wy = (x - left)[..., None], (y - top)[..., None]

    def corner(step: int) -> Float[Array, "s s c"]:
        return pixels.at[index + step].get(mode="promise_in_bounds").astype(jnp.float32)

    high = corner(0) * (1 - wx) + corner(1) * wx
    low = corner(stride) * (1 - wx) + corner(stride + 1) * wx
    return (high * (1 - wy) + low * wy) / 255


def sample_mirrored(
    image: UInt8[FloatArray, "h w c"], crop_from_img: Float[FloatArray, "2 3"], size: int
) -> Float[Array, "s s c"]:
    """The crop in [0, 1] of the nearest pixels; outside the image is its mirror image."""
    height, width, channels = image.shape
    to_img = invert_affine(crop_from_img)
    across, down = jnp.arange(size, dtype=jnp.float32)[None, :], jnp.arange(size)[:, None]
    x, y = (to_img[i, 0] * across + to_img[i, 1] * down + to_img[i, 2] for i in (0, 1))
    column, row = _mirrored(x, width), _mirrored(y, height)
    pixels = jnp.asarray(image).reshape(-1, channels)
    nearest = pixels.at[row * width + column].get(mode="promise_in_bounds")
    return nearest.astype(jnp.float32) / 255


def _mirrored(place_px: Float[Array, "s s"], length_px: int) -> Int[Array, "s s"]:
    index = jnp.floor(place_px + 0.5).astype(jnp.int32) % (2 * length_px)
    return jnp.minimum(index, 2 * length_px - 1 - index)
