"""Conversion between sRGB, in which images are stored, and linear RGB, in which they are lit."""

import numpy as np
from jaxtyping import Float


def linear_rgb(srgb_01: Float[np.ndarray, "*c"]) -> Float[np.ndarray, "*c"]:
    """Linear light from sRGB (IEC 61966-2-1)."""
    return np.where(srgb_01 <= 0.04045, srgb_01 / 12.92, ((srgb_01 + 0.055) / 1.055) ** 2.4)


def srgb(linear_01: Float[np.ndarray, "*c"]) -> Float[np.ndarray, "*c"]:
    """The inverse of `linear_rgb`."""
    high = 1.055 * np.maximum(linear_01, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear_01 <= 0.0031308, 12.92 * linear_01, high)
