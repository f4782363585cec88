"""Camera space without the exact K: how far a wrong focal length moves the answer.

Axes: b samples, n landmarks, v vertices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from m3dhmr_jax.inference import CameraHands, place
from m3dhmr_jax.types import Batch, FloatArray

FOCAL_NOISE = 0.03  # Standard deviation of the logarithm; what a guess from EXIF data is off by.
SEED = 0
HOW = (
    f"the focal length of each photo is multiplied by exp({FOCAL_NOISE} g), g standard normal, "
    f"drawn by (seed {SEED}, index of the photo); the principal point stays."
)


class CameraErrors(NamedTuple):
    """Distances to the true places, camera space."""

    joints_m: Float[FloatArray, "b n"]
    mesh_m: Float[FloatArray, "b v"]


def disturbed(
    intrinsics: Float[FloatArray, "b 3 3"], index: Int[FloatArray, " b"]
) -> Float[Array, "b 3 3"]:
    """K with another focal length; a photo's is the same in every run and batch."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(SEED), i))(jnp.asarray(index))
    factor = jnp.exp(FOCAL_NOISE * jax.vmap(jax.random.normal)(keys))
    return jnp.asarray(intrinsics).at[:, :2, :2].multiply(factor[:, None, None])


@jax.jit
def errors_with_perturbed_focal(hands: CameraHands, batch: Batch) -> CameraErrors:
    """Errors of an answer once it is placed by K with a wrong focal length."""
    intrinsics = disturbed(batch.intrinsics, batch.index)
    moved = place(hands.landmarks_px, hands.joints_m, hands.verts_m, intrinsics)
    return CameraErrors(
        jnp.linalg.norm(moved.joints_m - batch.joints_m, axis=-1),
        jnp.linalg.norm(moved.verts_m - batch.verts_m, axis=-1),
    )
