"""Silhouettes as how far they reach in each of DIRECTIONS of the picture, for masks and meshes.

Everything is written for one hand; batch with `jax.vmap`. Axes: h w mask, v vertices, k directions.
Pixels: centres on integers, (x, y) order.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from m3dhmr_jax.camera.pinhole import project
from m3dhmr_jax.types import FloatArray

_ANGLES = np.arange(24) * (2 * np.pi / 24)
DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)


class Reach(NamedTuple):
    """How far a mask reaches."""

    px: Float[FloatArray, "*b k"]  # The largest `direction . (x, y)` of its pixels; 0 if not seen.
    is_seen: Bool[FloatArray, "*b k"]  # Not where the mask meets the border there, or is empty.


def mask_reach(mask: Bool[FloatArray, "h w"]) -> Reach:
    """How far the pixels of a mask reach; a hand that goes on outside the picture is not seen."""
    mask = jnp.asarray(mask)
    h, w = mask.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    along = DIRECTIONS[:, :1, None] * x + DIRECTIONS[:, 1:, None] * y
    is_border = (x == 0) | (x == w - 1) | (y == 0) | (y == h - 1)

    def farthest(where: Bool[Array, "h w"]) -> Float[Array, " k"]:
        return jnp.max(jnp.asarray(along), axis=(1, 2), where=where[None], initial=-jnp.inf)

    px = farthest(mask)
    is_seen = px > farthest(mask & is_border)
    return Reach(jnp.where(is_seen, px, 0), is_seen)


def mesh_reach_px(
    verts_rel_m: Float[FloatArray, "v 3"],
    t_m: Float[Array, "3"],
    intrinsics: Float[FloatArray, "3 3"],
) -> Float[Array, " k"]:
    """How far the vertices of a mesh reach when its root is at `t_m`.

    Differentiable in `t_m`: the vertex that reaches farthest moves the reach.
    """
    verts = jnp.asarray(verts_rel_m)
    landmarks_px = project(verts + t_m[None], intrinsics)
    columns = (
        DIRECTIONS[:, :1] * landmarks_px[None, :, 0] + DIRECTIONS[:, 1:] * landmarks_px[None, :, 1]
    )
    farthest = verts[jnp.argmax(columns, axis=1)]
    return jnp.sum(DIRECTIONS * project(farthest + t_m[None], intrinsics), axis=1)
