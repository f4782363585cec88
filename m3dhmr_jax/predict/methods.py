"""Ways to recover the hands in an image: a trained network, or the fit of a hand model.

A method is a function of the candidates, each with its image, K and, with masks, the extents of its
mask (NO_EXTENT for a hand without one). It sees right hands only: the caller mirrors image, K and
candidates of left hands.
Axes: k hands, n = 21 joints or landmarks, v vertices, h w image.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.camera.root_recovery import Silhouette, recover_roots
from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.checkpoints.manager import digest
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
from m3dhmr_jax.inference import make_crop_step
from m3dhmr_jax.models.fast.folding import fold
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.predict.buckets import run_in_buckets
from m3dhmr_jax.predict.candidates import Candidates, unknown_shape
from m3dhmr_jax.predict.crops import Image, crop, crop_matrix
from m3dhmr_jax.predict.results import FittedPose
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import ROOT

# Reprojection noise at which nothing of a hand is believed, as a fraction of its crop.
MAX_NOISE = 0.1


class RightHands(NamedTuple):
    """Hands in the camera space of their own, possibly mirrored, image."""

    verts_m: Float[np.ndarray, "k v 3"]
    joints_m: Float[np.ndarray, "k n 3"]
    landmarks_px: Float[np.ndarray, "k n 2"]
    root_covariance_m2: Float[np.ndarray, "k 3 3"]
    noise_px: Float[np.ndarray, " k"]
    score: Float[np.ndarray, " k"]
    pose: FittedPose | None


class NetworkMethod:
    """A trained network on the candidates' crops.

    Attributes:
        weights_sha256: identifies the weights that predictions come from.
    """

    name = "network"
    needs_landmarks = False

    def __init__(self, network: Network, hand: HandModel, params: Any, stats: Any):
        self.hand = hand
        self._size = network.image_size
        # Trained arrays, not folded ones, which differ from backend to backend.
        self._trained = network.eval_graphdef, jax.device_get(params), jax.device_get(stats)
        self.weights_sha256 = digest({"params": params, "stats": stats})
        self._step = self._make_step()

    @single_precision()
    def _make_step(self) -> Callable[..., Any]:
        graphdef, params, stats = self._trained
        graphdef, folded = fold(graphdef, *jax.tree.map(jnp.asarray, (params, stats)))
        step = make_crop_step(graphdef, self.hand.joint_regressor, self._size)
        return functools.partial(step, folded, {})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._step = self._make_step()

    def __call__(
        self,
        images: Sequence[Image],
        candidates: Candidates,
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> RightHands:
        """The hands; see the module's docstring."""
        crops = np.zeros((len(images), self._size, self._size, 3), np.uint8)
        img_from_crop = np.zeros((len(images), 2, 3), np.float32)
        where = zip(images, candidates.crop_px, candidates.direction_rad.tolist(), strict=True)
        for i, (image, crop_px, direction_rad) in enumerate(where):
            matrix = crop_matrix(crop_px, self._size, direction_rad)
            crops[i] = crop(image, matrix, self._size)
            img_from_crop[i] = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        inputs = crops, img_from_crop, intrinsics.astype(np.float32)
        hands = run_in_buckets(self._step, *inputs, *([] if extents is None else [extents]))
        doubt = hands.noise_px / (MAX_NOISE * candidates.crop_px[:, 2])
        score = candidates.presence * np.clip(1 - doubt, 0, 1)
        return RightHands(
            hands.verts_m,
            hands.joints_m,
            hands.landmarks_px,
            hands.root_covariance_m2,
            hands.noise_px,
            score,
            None,
        )


class FitMethod:
    """The hand model fitted to each candidate's landmarks.

    Attributes:
        weights_sha256: identifies the hand that is fitted.
    """

    name = "fit"
    needs_landmarks = True

    def __init__(self, hand: HandModel):
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


Method = NetworkMethod | FitMethod
