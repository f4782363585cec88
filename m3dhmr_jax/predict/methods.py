"""Ways to recover the hands in an image: a trained network, or the fit of a hand model.

A method is a function of the candidates, each with its image, K and, with masks, the extents of its
mask (NO_EXTENT for a hand without one). It sees right hands only: the caller mirrors image, K and
candidates of left hands.
Axes: k hands, n = 21 joints or landmarks, v vertices, h w image, s crop side.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.predict.candidates import Candidates
from m3dhmr_jax.predict.crops import Image, crop, crop_matrix
from m3dhmr_jax.predict.networks import CropNetwork
from m3dhmr_jax.predict.results import FittedPose

FIT, NETWORK = "fit", "network"
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


@runtime_checkable
class Method(Protocol):
    """A way to recover hands."""

    # FIT or NETWORK.
    name: str
    # Whether it cannot do without the detector's.
    needs_landmarks: bool
    hand: HandModel
    # Identifies what predictions come from.
    weights_sha256: str

    def __call__(
        self,
        images: Sequence[Image],
        candidates: Candidates,
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> RightHands:
        """The hands; see the module's docstring."""
        ...


class NetworkMethod:
    """A trained network on the candidates' crops."""

    name = NETWORK
    needs_landmarks = False

    def __init__(self, network: CropNetwork):
        self._network = network
        self.hand = network.hand
        self.weights_sha256 = network.weights_sha256

    def __call__(
        self,
        images: Sequence[Image],
        candidates: Candidates,
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> RightHands:
        """The hands; see the module's docstring."""
        size = self._network.image_size
        crops = np.zeros((len(images), size, size, 3), np.uint8)
        img_from_crop = np.zeros((len(images), 2, 3), np.float32)
        where = zip(images, candidates.crop_px, candidates.direction_rad.tolist(), strict=True)
        for i, (image, crop_px, direction_rad) in enumerate(where):
            matrix = crop_matrix(crop_px, size, direction_rad)
            crops[i] = crop(image, matrix, size)
            img_from_crop[i] = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        hands = self._network(crops, img_from_crop, intrinsics.astype(np.float32), extents)
        noise_px = np.asarray(hands.noise_px)
        doubt = noise_px / (MAX_NOISE * candidates.crop_px[:, 2])
        score = candidates.presence * np.clip(1 - doubt, 0, 1)
        return RightHands(
            np.asarray(hands.verts_m),
            np.asarray(hands.joints_m),
            np.asarray(hands.landmarks_px),
            np.asarray(hands.root_covariance_m2),
            noise_px,
            score,
            None,
        )
