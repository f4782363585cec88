"""The fit of a hand model to landmarks, in JAX; see `predict.methods`.

Axes: k hands, n = 21 joints or landmarks, v vertices, h w image.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.camera.root_recovery import Silhouette, recover_roots
from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.fitting import (
    COMMON,
    OWN_CONVENTION,
    SHAPE_STD,
    FittedHand,
    Observation,
    landmark_std,
    make_fit,
    reliability,
)
from m3dhmr_jax.hand import HandModel, hand_id
from m3dhmr_jax.predict.buckets import run_in_buckets
from m3dhmr_jax.predict.candidates import Candidates, unknown_shape
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.methods import FIT, RightHands
from m3dhmr_jax.predict.results import FittedPose
from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import ROOT


class FitMethod:
    """The hand model fitted to each candidate's landmarks.

    Attributes:
        weights_sha256: identifies the hand that is fitted.
    """

    name = FIT
    needs_landmarks = True

    def __init__(self, hand: HandModel):
        enable_compilation_cache()
        self.hand = hand
        self.weights_sha256 = hand_id(hand)
        # On a CPU, batches are hardly faster, and every size takes ten seconds to compile.
        self._buckets = (1,) if jax.default_backend() == "cpu" else (1, 8)
        self._fit = make_fit(hand)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.hand,)

    @functools.cached_property
    def _fit_given(self) -> Callable[[Observation], FittedHand]:
        """For landmarks from elsewhere; its constants take a second to compute."""
        return make_fit(self.hand, OWN_CONVENTION)

    @single_precision()
    def __call__(
        self,
        images: Sequence[Image],
        candidates: Candidates,
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> RightHands:
        """The hands; see the module's docstring. The candidates must have landmarks."""
        landmarks = candidates.landmarks
        assert landmarks is not None
        k, p = len(images), len(self.hand.shape_basis)
        shape = candidates.shape or unknown_shape(k, p)
        # Landmarks from elsewhere have no 3D landmarks and are in FreiHAND's convention.
        has_joints = np.isfinite(landmarks.joints_rel_m).all(axis=(1, 2))
        columns = (
            landmarks.landmarks_px,
            landmark_std(np.nan_to_num(landmarks.disagreement)),
            np.nan_to_num(landmarks.joints_rel_m),
            has_joints.astype(np.float32),
            intrinsics,
            np.nan_to_num(shape.mean),
            np.nan_to_num(shape.std, nan=SHAPE_STD),
        )
        observation = Observation(*(np.asarray(x, np.float32) for x in columns))
        fit = self._fit if has_joints.any() else self._fit_given
        fitted: Any = run_in_buckets(fit, observation, buckets=self._buckets)
        if extents is not None:
            fitted = _place_by_masks(fitted, landmarks.landmarks_px, intrinsics, extents)
        disagreement = landmarks.disagreement.mean(axis=1)
        residuals = fitted.residual, fitted.joints_residual
        score = candidates.presence * reliability(*residuals, np.nan_to_num(disagreement))
        return RightHands(
            fitted.verts_m,
            fitted.joints_m,
            landmarks.landmarks_px.astype(np.float32),
            fitted.root_covariance_m2,
            fitted.noise_px,
            score,
            FittedPose(fitted.rotations, fitted.shape, fitted.shape_std),
        )


def _place_by_masks(
    fitted: FittedHand,
    landmarks_px: Float[np.ndarray, "k n 2"],
    intrinsics: Float[np.ndarray, "k 3 3"],
    extents: SilhouetteExtent,
) -> FittedHand:
    """The fitted hands moved to where their landmarks and masks agree best."""
    root_m = fitted.joints_m[:, ROOT, None]
    silhouette = Silhouette(fitted.verts_m - root_m, extents)
    root = run_in_buckets(
        recover_roots,
        fitted.joints_m[:, COMMON] - root_m,
        landmarks_px[:, COMMON].astype(np.float32),
        intrinsics.astype(np.float32),
        silhouette,
    )
    shift_m = root.t_m[:, None] - root_m
    return fitted._replace(
        verts_m=fitted.verts_m + shift_m,
        joints_m=fitted.joints_m + shift_m,
        root_covariance_m2=root.covariance_m2,
        noise_px=root.noise_px,
    )
