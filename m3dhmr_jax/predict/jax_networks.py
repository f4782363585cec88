"""Networks in JAX, compiled when they first run, for batches of a few sizes.

Axes: k hands, b batch, s crop side.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.checkpoints.restore import NEWEST, restore_eval_state
from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.inference import make_crop_step, place
from m3dhmr_jax.models.fast.folding import fold
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.models.hand_detector import detect_palms, find_landmarks
from m3dhmr_jax.models.hand_detector_outputs import DetectorWeights, HandLandmarks, PalmCandidates
from m3dhmr_jax.predict.buckets import BUCKETS, run_in_buckets
from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import CameraHands

# Images per call of the detector: the features of more than two leave the caches of a CPU.
CPU_BUCKETS = (1, 2)


class JaxNetwork:
    """A trained network, folded for this backend; see `predict.networks.CropNetwork`."""

    def __init__(self, network: Network, hand: HandModel, params: Any, stats: Any):
        enable_compilation_cache()
        self.hand = hand
        self.image_size = network.image_size
        # Trained arrays, not folded ones, which differ from backend to backend.
        self._trained = network.eval_graphdef, jax.device_get(params), jax.device_get(stats)
        self.weights_sha256 = digest({"params": params, "stats": stats})
        self._step = self._make_step()

    @single_precision()
    def _make_step(self) -> Callable[..., Any]:
        graphdef, params, stats = self._trained
        graphdef, folded = fold(graphdef, *jax.tree.map(jnp.asarray, (params, stats)))
        step = make_crop_step(graphdef, self.hand.joint_regressor, self.image_size)
        return functools.partial(step, folded, {})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._step = self._make_step()

    @single_precision()
    def __call__(
        self,
        crops: UInt8[np.ndarray, "k s s 3"],
        img_from_crop: Float[np.ndarray, "k 2 3"],
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> CameraHands:
        inputs = crops, img_from_crop, intrinsics
        return run_in_buckets(self._step, *inputs, *([] if extents is None else [extents]))


@single_precision()
def load_network(path: Path) -> JaxNetwork:
    """See `predict.runtimes.Runtime`."""
    config = load_config(path)
    hand = load_hand(config)
    network = create_network(config, hand, abstract=True)
    state = restore_eval_state(network, path, str(path) if path.is_file() else NEWEST)
    return JaxNetwork(network, hand, state.params, state.stats)


@single_precision()
def place_by_masks(
    hands: CameraHands, intrinsics: Float[np.ndarray, "k 3 3"], extents: SilhouetteExtent
) -> CameraHands:
    """The hands moved to where their landmarks and masks agree best."""
    rows = hands.landmarks_px, hands.joints_m, hands.verts_m, intrinsics, extents
    return run_in_buckets(_place, *rows)


_place = jax.jit(place)


class JaxDetector:
    """The detector's networks; see `predict.networks.DetectorNetworks`."""

    def __init__(self, weights: DetectorWeights):
        enable_compilation_cache()
        self._weights = weights
        # To the device here: inside a compiled function every call would do it.
        palms, landmarks = jax.tree.map(jnp.asarray, weights)
        self._detect_palms = functools.partial(jax.jit(detect_palms), palms)
        self._find_landmarks = functools.partial(jax.jit(find_landmarks), landmarks)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._weights,)

    @single_precision()
    def detect_palms(self, images: UInt8[np.ndarray, "b 192 192 3"]) -> PalmCandidates:
        return run_in_buckets(self._detect_palms, images, buckets=_buckets())

    @single_precision()
    def find_landmarks(self, images: UInt8[np.ndarray, "b 224 224 3"]) -> HandLandmarks:
        return run_in_buckets(self._find_landmarks, images, buckets=_buckets())


def _buckets() -> Sequence[int]:
    return CPU_BUCKETS if jax.default_backend() == "cpu" else BUCKETS
