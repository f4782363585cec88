"""Networks as functions from arrays to arrays, whatever runs them; see `predict.runtimes`.

Axes: k hands, b batch, s crop side.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.models.hand_detector_outputs import HandLandmarks, PalmCandidates
from m3dhmr_jax.types import CameraHands


@runtime_checkable
class CropNetwork(Protocol):
    """A trained network and the placement of its hands, in some runtime; can be pickled."""

    hand: HandModel
    image_size: int
    # Identifies the weights.
    weights_sha256: str

    def __call__(
        self,
        crops: UInt8[np.ndarray, "k s s 3"],
        img_from_crop: Float[np.ndarray, "k 2 3"],
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> CameraHands:
        """The hands in RGB crops; NumPy arrays. What a crop is rotated by, they are rotated back.

        The extents are those of their masks in the images.
        """
        ...


@runtime_checkable
class DetectorNetworks(Protocol):
    """The detector's two networks in some runtime, for any number of images but none.

    They take RGB and return NumPy arrays, and can be pickled.
    """

    def detect_palms(self, images: UInt8[np.ndarray, "b 192 192 3"]) -> PalmCandidates:
        """See `models.hand_detector.detect_palms`."""
        ...

    def find_landmarks(self, images: UInt8[np.ndarray, "b 224 224 3"]) -> HandLandmarks:
        """See `models.hand_detector.find_landmarks`."""
        ...
