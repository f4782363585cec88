"""Camera-space errors if K is not exact: effect of a wrong focal length.

Axes: b samples, n landmarks, v vertices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from m3dhmr_jax.inference import place
from m3dhmr_jax.types import Batch, CameraHands, FloatArray

FOCAL_NOISE = 0.03  # Standard deviation of the logarithm; typical of EXIF estimates.
SEED = 0
DESCRIPTION = (
    f"the focal length of each image is multiplied by exp({FOCAL_NOISE} g), g standard normal, "
    f"seeded with ({SEED}, index of the image); the principal point stays."
)


class CameraErrors(NamedTuple):
    """Distances to the ground truth in camera space."""

    joint_errors_m: Float[FloatArray, "b n"]
    vert_errors_m: Float[FloatArray, "b v"]


def perturb_focal(
    intrinsics: Float[FloatArray, "b 3 3"], index: Int[FloatArray, " b"]
) -> Float[Array, "b 3 3"]:
    """K with another focal length, which depends on the image's index only."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(SEED), i))(jnp.asarray(index))
    factor = jnp.exp(FOCAL_NOISE * jax.vmap(jax.random.normal)(keys))
    return jnp.asarray(intrinsics).at[:, :2, :2].multiply(factor[:, None, None])


@jax.jit
def errors_with_perturbed_focal(hands: CameraHands, batch: Batch) -> CameraErrors:
    """Errors of predictions that are placed with the K of a wrong focal length."""
    intrinsics = perturb_focal(batch.intrinsics, batch.index)
    placed = place(hands.landmarks_px, hands.joints_m, hands.verts_m, intrinsics)
    return CameraErrors(
        jnp.linalg.norm(placed.joints_m - batch.joints_m, axis=-1),
        jnp.linalg.norm(placed.verts_m - batch.verts_m, axis=-1),
    )
