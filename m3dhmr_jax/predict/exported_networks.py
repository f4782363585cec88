"""Networks that run outside JAX, from ONNX models in the user's cache folder.

JAX is imported only to write a model that is not there yet, and for hands with masks.
Axes: k hands, b batch, n = 21 joints or landmarks, v vertices, s crop side.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.checkpoints.identity import source_identity
from m3dhmr_jax.export.model_cache import CachedModel, cache_key, read_cached, write_cached
from m3dhmr_jax.export.onnx_runtimes import RunModel
from m3dhmr_jax.export.place import Hand, place
from m3dhmr_jax.hand.mano import load_mano_or_builtin
from m3dhmr_jax.hand.model import HandModel, hand_id
from m3dhmr_jax.models.hand_detector_outputs import HandLandmarks, PalmCandidates
from m3dhmr_jax.runtime.files import user_path
from m3dhmr_jax.types import N_JOINTS, CameraHands

StartModel = Callable[[bytes], RunModel]
# Images per call: of more, the features leave the caches of a CPU.
NETWORK_BATCH, DETECTOR_BATCH = 8, 2
# Facts about a cached network: its weights, its hand, and the file of that, "" for the built-in.
WEIGHTS, HAND, HAND_FILE, IMAGE_SIZE = "weights_sha256", "hand", "hand_file", "image_size"


class ExportedNetwork:
    """A trained network whose hands are placed with NumPy; see `predict.networks.CropNetwork`."""

    def __init__(self, model: CachedModel, hand: HandModel, start: StartModel):
        self.hand = hand
        self.image_size = int(model.facts[IMAGE_SIZE])
        self.weights_sha256 = model.facts[WEIGHTS]
        self._arguments = model, hand, start
        self._run = start(model.content)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __call__(
        self,
        crops: UInt8[np.ndarray, "k s s 3"],
        img_from_crop: Float[np.ndarray, "k 2 3"],
        intrinsics: Float[np.ndarray, "k 3 3"],
        extents: SilhouetteExtent | None,
    ) -> CameraHands:
        placed: list[Hand] = []
        for rows, found in _batches(self._run, crops, NETWORK_BATCH):
            placed += map(place, *found, map(_inverse, img_from_crop[rows]), intrinsics[rows])
        k, v = len(placed), len(self.hand.verts_m)
        hands = CameraHands(
            landmarks_px=_stack([hand.landmarks_px for hand in placed], (k, N_JOINTS, 2)),
            joints_m=_stack([hand.joints_m for hand in placed], (k, N_JOINTS, 3)),
            verts_m=_stack([hand.vertices_m for hand in placed], (k, v, 3)),
            root_covariance_m2=_stack([hand.root_covariance_m2 for hand in placed], (k, 3, 3)),
            noise_px=_stack([hand.noise_px for hand in placed], (k,)),
        )
        if extents is None:
            return hands
        from m3dhmr_jax.predict.jax_networks import place_by_masks

        return place_by_masks(hands, intrinsics, extents)


class ExportedDetector:
    """The detector's networks; see `predict.networks.DetectorNetworks`."""

    def __init__(self, palms: CachedModel, landmarks: CachedModel, start: StartModel):
        self._arguments = palms, landmarks, start
        self._palms, self._landmarks = start(palms.content), start(landmarks.content)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def detect_palms(self, images: UInt8[np.ndarray, "b 192 192 3"]) -> PalmCandidates:
        return PalmCandidates(*_run_all(self._palms, images))

    def find_landmarks(self, images: UInt8[np.ndarray, "b 224 224 3"]) -> HandLandmarks:
        return HandLandmarks(*_run_all(self._landmarks, images))


def load_network(path: Path, start: StartModel) -> ExportedNetwork:
    """See `predict.runtimes.Runtime`."""
    path = user_path(path)
    key = cache_key(b"network", *source_identity(path))
    model = read_cached(key)
    if model is not None:
        hand = load_mano_or_builtin(model.facts[HAND_FILE])
        if hand_id(hand) == model.facts[HAND]:
            return ExportedNetwork(model, hand, start)
    model, hand = _export(path)
    write_cached(key, model)
    return ExportedNetwork(model, hand, start)


def load_detector(weights: Path, start: StartModel) -> ExportedDetector:
    """See `predict.runtimes.Runtime`."""
    content = weights.read_bytes() if weights.is_file() else b""
    keys = [cache_key(name, content) for name in (b"palms", b"landmarks")]
    palms, landmarks = map(read_cached, keys)
    if palms is None or landmarks is None:
        from m3dhmr_jax.export.onnx_detector import landmark_model, palm_model
        from m3dhmr_jax.predict.detector_weights import load_detector_weights

        arrays = load_detector_weights(weights)
        palms = CachedModel(palm_model(arrays.palms).SerializeToString(), {})
        landmarks = CachedModel(landmark_model(arrays.landmarks).SerializeToString(), {})
        for key, model in zip(keys, (palms, landmarks), strict=True):
            write_cached(key, model)
    return ExportedDetector(palms, landmarks, start)


def _export(path: Path) -> tuple[CachedModel, HandModel]:
    """The network as JAX would load it."""
    from m3dhmr_jax.export.onnx_network import network_model
    from m3dhmr_jax.export.trained import load_trained

    trained = load_trained(path)
    model = network_model(trained.network, trained.hand)
    metadata = {each.key: each.value for each in model.metadata_props}
    facts = {name: metadata[name] for name in (WEIGHTS, HAND, IMAGE_SIZE)}
    facts[HAND_FILE] = json.loads(trained.config_json)["hand"]
    return CachedModel(model.SerializeToString(), facts), trained.hand


def _batches(
    run: RunModel, images: UInt8[np.ndarray, "k s s 3"], size: int
) -> Iterator[tuple[slice, Sequence[np.ndarray]]]:
    """The outputs for some rows after the other."""
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        yield rows, run(images[rows])


def _run_all(run: RunModel, images: UInt8[np.ndarray, "b s s 3"]) -> Iterator[np.ndarray]:
    parts = [found for _, found in _batches(run, images, DETECTOR_BATCH)]
    return map(np.concatenate, zip(*parts, strict=True))


def _inverse(img_from_crop: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    return np.linalg.inv(np.vstack([img_from_crop, [0, 0, 1]]))[:2]


def _stack(rows: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Float32; of this shape also without rows."""
    return np.array(rows, np.float32).reshape(shape)
