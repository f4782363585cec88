"""Pinhole camera and planar affine maps.

Everything is written for one hand; batch with `jax.vmap`.
Axes: n points. Camera frame: x right, y down, z forward, metres. Pixels: centres on integers,
(x, y) order. K is the intrinsic matrix, pixels from camera coordinates, with last row (0, 0, 1).
A map is named after its direction: `crop_from_img` maps image pixels to crop pixels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from m3dhmr_jax.types import FloatArray


def apply_affine(
    points: Float[FloatArray, "n 2"], matrix: Float[FloatArray, "2 3"]
) -> Float[Array, "n 2"]:
    """Maps points by `matrix`: `q = A p + b` with `matrix = [A | b]`."""
    x, y = jnp.asarray(points)[:, 0], jnp.asarray(points)[:, 1]
    # Products in full precision: a `matmul` would round its factors on accelerators.
    rows = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1)]
    return jnp.stack(rows, axis=-1)


def invert_affine(matrix: Float[FloatArray, "2 3"]) -> Float[Array, "2 3"]:
    """The inverse map; not finite if `matrix` is singular."""
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    shift = inverse[:, 0] * matrix[0, 2] + inverse[:, 1] * matrix[1, 2]
    return jnp.concatenate([inverse, -shift[:, None]], axis=1)


def rotate_about_optical_axis(
    points: Float[FloatArray, "n 3"], angle_rad: Float[FloatArray, ""]
) -> Float[Array, "n 3"]:
    """Rotates points about the optical axis as the image content rotates.

    Positive is counter-clockwise on the screen; as y points down, that is R(-angle) with
    R(t) = [[cos t, -sin t], [sin t, cos t]].
    """
    cos, sin = jnp.cos(angle_rad), jnp.sin(angle_rad)
    x, y, z = jnp.moveaxis(jnp.asarray(points), -1, 0)
    return jnp.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1)


def project(
    points_m: Float[FloatArray, "n 3"], intrinsics: Float[FloatArray, "3 3"]
) -> Float[Array, "n 2"]:
    """Pinhole projection to pixels; depth must be positive."""
    points = jnp.asarray(points_m)
    return apply_affine(points[:, :2] / points[:, 2:], intrinsics[:2])
