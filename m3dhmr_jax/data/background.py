"""Another background behind a hand: a random part of another image.

Axes: h w image, s crop side.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from m3dhmr_jax.data.crop import crop_from_box, sample_mirrored
from m3dhmr_jax.types import FloatArray

SIDE_RANGE = (0.27, 0.95)  # Sides of the part over the shorter side of the image.
# How far the part's centre keeps from the hand's box there, over its side: hands behind hands are
# seldom complete.
HAND_DISTANCE = 0.55
# Pixels of less coverage are all background, those of more all hand: they are mixed at its edge.
COVERAGE_RANGE = (0.3, 0.9)


def random_background(
    key: Key[Array, ""],
    image: UInt8[FloatArray, "h w 3"],
    bbox_px: Float[FloatArray, "4"],
    size: int,
) -> Float[Array, "s s 3"]:
    """A random square of the image, in any direction, mostly beside the hand in its box."""
    height, width, _ = image.shape
    side_key, centre_key, angle_key = jax.random.split(key, 3)
    low, high = SIDE_RANGE
    side = min(height, width) * jax.random.uniform(side_key, minval=low, maxval=high)
    centre = jax.random.uniform(centre_key, (2,)) * jnp.array([width, height])
    bbox_px = jnp.asarray(bbox_px)
    away = centre - (bbox_px[:2] + bbox_px[2:] / 2)
    distance = jnp.maximum(jnp.linalg.norm(away), 1e-3)
    missing = jnp.maximum(HAND_DISTANCE * side - distance, 0.0)
    centre = centre + missing / distance * away
    angle = jax.random.uniform(angle_key, minval=-math.pi, maxval=math.pi)
    square, crop = jnp.stack([side, side]), jnp.full(2, float(size))
    return sample_mirrored(image, crop_from_box(centre, square, crop, angle), size)


def exchange_background(
    crop_01: Float[FloatArray, "s s 3"],
    coverage_01: Float[FloatArray, "s s"],
    background_01: Float[FloatArray, "s s 3"],
) -> Float[Array, "s s 3"]:
    """The crop where it is covered, the new background elsewhere, with a soft edge between."""
    low, high = COVERAGE_RANGE
    covered = jnp.clip((coverage_01 - low) / (high - low), 0.0, 1.0)[..., None]
    return covered * crop_01 + (1 - covered) * background_01
