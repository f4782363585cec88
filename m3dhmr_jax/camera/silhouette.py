"""Silhouette extents: the support function of a mask or a projected mesh in fixed directions.

The extent in a direction is the largest `direction . (x, y)` over all points of the silhouette.
`silhouette_extent` runs on the host, for a mask of any size; `mesh_extent.mesh_extent_px` runs on
the device. Both are written for one hand. Axes: h w mask, k directions.
Pixels: centres on integers, (x, y) order.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from m3dhmr_jax.types import FloatArray

_ANGLES = np.arange(24) * (2 * np.pi / 24)
DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)


class SilhouetteExtent(NamedTuple):
    """The extent of a hand's mask in each of DIRECTIONS, pixels of the whole image."""

    # 0 where not visible.
    px: Float[FloatArray, "*b k"]
    # False where the mask touches the image border there, and everywhere for an empty mask.
    is_visible: Bool[FloatArray, "*b k"]


# The extent of a hand without a mask.
NO_EXTENT = SilhouetteExtent(
    np.zeros(len(DIRECTIONS), np.float32), np.zeros(len(DIRECTIONS), np.bool_)
)


def silhouette_extent(mask: Bool[np.ndarray, "h w"]) -> SilhouetteExtent:
    """The extent of a mask of the whole image; a hand may continue beyond the image border."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return NO_EXTENT
    # Only the ends of each row of pixels can be extreme, so large masks cost little.
    h, w = mask.shape
    first, last = mask[rows].argmax(axis=1), w - 1 - mask[rows, ::-1].argmax(axis=1)
    x, y = np.concatenate([first, last]), np.concatenate([rows, rows])
    along = DIRECTIONS[:, :1] * x.astype(np.float32) + DIRECTIONS[:, 1:] * y.astype(np.float32)
    on_border = (x == 0) | (x == w - 1) | (y == 0) | (y == h - 1)
    px = along.max(axis=1)
    is_visible = px > np.where(on_border, along, -np.inf).max(axis=1)
    return SilhouetteExtent(np.where(is_visible, px, np.float32(0)), is_visible)
