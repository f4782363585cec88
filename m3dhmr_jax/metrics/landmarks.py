"""How well landmarks are found in photos.

Axes: b samples, n landmarks.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from m3dhmr_jax.camera.pinhole import project
from m3dhmr_jax.data.augment import FREIHAND_IMAGE_PX
from m3dhmr_jax.types import Batch, FloatArray

NEAR_PX = 5.0


def landmark_scores(
    errors_px: Float[FloatArray, "b n"], valid: Bool[FloatArray, " b"] | None = None
) -> dict[str, float]:
    """Mean and median distance, and the share within NEAR_PX, over the landmarks of valid hands.

    Raises:
        ValueError: if no hand is valid, or a valid one's distance is not finite.
    """
    rows = np.arange(len(errors_px)) if valid is None else np.flatnonzero(valid)
    kept = np.asarray(errors_px, np.float64)[rows]
    if not len(kept):
        raise ValueError(f"no valid sample among {len(errors_px)}: there is nothing to score")
    bad = rows[~np.isfinite(kept).all(axis=1)]
    if len(bad):
        raise ValueError(
            f"sample {bad[0]} ({len(bad)} of {len(rows)}) has landmark errors that are not finite: "
            "look for NaN or infinity in that prediction or its truth"
        )
    return {
        "landmark_error_px": float(kept.mean()),
        "landmark_median_px": float(np.median(kept)),
        "pck_5px": float(np.mean(kept <= NEAR_PX)),
    }


def project_joints(
    joints_m: Float[FloatArray, "b n 3"], intrinsics: Float[FloatArray, "b 3 3"]
) -> Float[Array, "b n 2"]:
    """The landmarks of joints in camera space, px."""
    return jax.vmap(project)(jnp.asarray(joints_m), jnp.asarray(intrinsics))


def landmark_errors_px(
    landmarks_px: Float[FloatArray, "b n 2"], batch: Batch
) -> Float[Array, "b n"]:
    """Distances to the true landmarks, in pixels of an image scaled to FreiHAND's size."""
    error_px = jnp.asarray(landmarks_px) - project_joints(batch.joints_m, batch.intrinsics)
    shorter_px = min(batch.image.shape[1:3])
    return jnp.linalg.norm(error_px, axis=-1) * (FREIHAND_IMAGE_PX / shorter_px)
