"""Pinhole camera, planar affine maps, and where a root-relative hand stands in camera space.

Everything is written for one hand; batch with `jax.vmap`.
Axes: n points. Camera frame: x right, y down, z forward, metres. Pixels: centres on integers,
(x, y) order. K is the intrinsic matrix, pixels from camera coordinates, with last row (0, 0, 1).
The name of a map is its direction: `crop_from_img` takes photo pixels to crop pixels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from m3dhmr_jax.types import FloatArray

NEAREST_M = 0.05  # No point of a hand is placed nearer to the camera than this,
FARTHEST_M = 20.0  # and no root farther: landmarks in one spot would send a hand to infinity.
GAUSS_NEWTON_STEPS = 8  # Three reach float32's rounding on clean landmarks, eight on wild ones.


def apply_affine(
    points: Float[FloatArray, "n 2"], matrix: Float[FloatArray, "2 3"]
) -> Float[Array, "n 2"]:
    """Maps points by `matrix`: `q = A p + b` with `matrix = [A | b]`."""
    x, y = jnp.asarray(points)[:, 0], jnp.asarray(points)[:, 1]
    rows = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1)]
    return jnp.stack(rows, axis=-1)


def invert_affine(matrix: Float[FloatArray, "2 3"]) -> Float[Array, "2 3"]:
    """The opposite direction; not finite if `matrix` flattens the plane."""
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
    shift = inverse[:, 0] * matrix[0, 2] + inverse[:, 1] * matrix[1, 2]
    return jnp.concatenate([inverse, -shift[:, None]], axis=1)


def compose_affine(
    outer: Float[FloatArray, "2 3"], inner: Float[FloatArray, "2 3"]
) -> Float[Array, "2 3"]:
    """`inner` first, then `outer`: `c_from_a = compose_affine(c_from_b, b_from_a)`."""
    linear = jnp.asarray(outer)[:, :2]
    product = jnp.matmul(linear, inner, precision="highest")
    return product.at[:, 2].add(outer[:, 2])


def turn_with_picture(
    points: Float[FloatArray, "n 3"], angle_rad: Float[FloatArray, ""]
) -> Float[Array, "n 3"]:
    """Turns points about the optical axis as the picture turns.

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


def crop_intrinsics(
    intrinsics: Float[FloatArray, "3 3"], crop_from_img: Float[FloatArray, "2 3"]
) -> Float[Array, "3 3"]:
    """K of a crop: `project` with it answers crop pixels.

    Exact for every affine map. The camera axes stay those of the photo, so a turn of the crop
    stands in the upper left of the new K and points are not to be turned as well.
    """
    upper = compose_affine(crop_from_img, intrinsics[:2])
    return jnp.concatenate([upper, jnp.array([[0.0, 0.0, 1.0]], upper.dtype)])


def linear_translation(
    points_rel_m: Float[Array, "n 3"], rays: Float[Array, "n 2"], weights: Float[Array, " n"]
) -> Float[Array, "3"]:
    """Least squares of `ray * depth - (x, y)`, in closed form: depth first, then x and y.

    `rays` are the landmarks at depth 1. Weights the residual of a far point more than pixels do.
    """
    share = (weights / jnp.maximum(jnp.sum(weights), 1e-12))[:, None]
    offset = points_rel_m[:, :2] - rays * points_rel_m[:, 2:]
    ray_mean = jnp.sum(share * rays, axis=0, keepdims=True)
    offset_mean = jnp.sum(share * offset, axis=0, keepdims=True)
    spread = rays - ray_mean
    moment = jnp.sum(share * spread * (offset - offset_mean))
    depth = moment / jnp.maximum(jnp.sum(share * spread**2), 1e-12)
    return jnp.append(ray_mean[0] * depth - offset_mean[0], depth)


def _in_front(t_m: Float[Array, "3"], points_rel_m: Float[Array, "n 3"]) -> Float[Array, "3"]:
    return t_m.at[2].min(FARTHEST_M).at[2].max(NEAREST_M - jnp.min(points_rel_m[:, 2]))


def gauss_newton_step(
    t_m: Float[Array, "3"],
    points_rel_m: Float[Array, "n 3"],
    uv_px: Float[Array, "n 2"],
    intrinsics: Float[Array, "3 3"],
    weights: Float[Array, " n"],
) -> Float[Array, "3"]:
    """One step towards the least weighted squared reprojection error, never behind the camera."""

    def residuals(t_m: Float[Array, "3"]) -> Float[Array, "n 2"]:
        return project(points_rel_m + t_m[None], intrinsics) - uv_px

    jacobian = jax.jacfwd(residuals)(t_m)
    weighted = jacobian * weights[:, None, None]
    curvature = jnp.einsum("nai,naj->ij", weighted, jacobian, precision="highest")
    slope = jnp.einsum("nai,na->i", weighted, residuals(t_m), precision="highest")
    # Landmarks in one spot leave the depth open, no weight at all everything: then no step.
    damping = 1e-6 * (1 + jnp.trace(curvature))
    step = jnp.linalg.solve(curvature + damping * jnp.eye(3), slope)
    return _in_front(t_m - step, points_rel_m)


def fit_translation(
    points_rel_m: Float[FloatArray, "n 3"],
    uv_px: Float[FloatArray, "n 2"],
    intrinsics: Float[FloatArray, "3 3"],
    weights: Float[FloatArray, " n"] | None = None,
) -> Float[Array, "3"]:
    """Translation that puts root-relative points where they project onto `uv_px`.

    The linear solution, then Gauss-Newton on the squared reprojection error in pixels; `weights`
    are of the squares, 1 each unless given. Outliers pull on it with their full weight.
    """
    points, uv, k = jnp.asarray(points_rel_m), jnp.asarray(uv_px), jnp.asarray(intrinsics)
    weights = jnp.ones(len(points), points.dtype) if weights is None else jnp.asarray(weights)
    rays = apply_affine(uv, invert_affine(k[:2]))
    t_m = _in_front(linear_translation(points, rays, weights), points)
    for _ in range(GAUSS_NEWTON_STEPS):
        t_m = gauss_newton_step(t_m, points, uv, k, weights)
    return t_m
