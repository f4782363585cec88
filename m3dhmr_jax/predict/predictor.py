"""Hands in a photo, in front of its camera: the one object that other programs need.

Axes: k hands, n = 21 landmarks, v vertices, f faces, h w photo, s crop side.
Camera frame: x right, y down, z forward, metres. Pixels: centres on integers, (x, y) order.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.checkpoints.restore import restore_eval_state
from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import make_crop_step
from m3dhmr_jax.models.fast.folding import fold
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    check_intrinsics,
    mirrored_intrinsics,
    misfit,
)
from m3dhmr_jax.predict.crops import (
    Photo,
    check_boxes,
    crop,
    crop_matrix,
    mirrored_boxes,
    square_of_photo,
    squares_around,
)
from m3dhmr_jax.predict.images import as_photo
from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache
from m3dhmr_jax.types import ROOT, Config

BUCKETS = (1, 2, 4, 8)  # Hands per call of the device; each number is compiled once, when needed.
SIDES = ("right", "left")


class PredictedHands(NamedTuple):
    """Hands in camera space, in the order of the boxes; NumPy arrays."""

    verts_m: Float[np.ndarray, "k v 3"]
    joints_m: Float[np.ndarray, "k n 3"]  # FreiHAND order, regressed from the vertices.
    landmarks_px: Float[np.ndarray, "k n 2"]  # As the network sees them, pixels of the photo.
    root_m: Float[np.ndarray, "k 3"]  # The wrist, joints_m[:, 0].
    root_covariance_m2: Float[np.ndarray, "k 3 3"]  # Of the place: large where depth is unsure.
    noise_px: Float[np.ndarray, " k"]  # By which landmarks and mesh disagree.
    faces: Int[np.ndarray, "k f 3"]  # Counter-clockwise seen from outside.
    is_left: Bool[np.ndarray, " k"]
    square_px: Float[np.ndarray, "k 4"]  # What the network looked at: (x, y, side, side).
    intrinsics: Float[np.ndarray, "3 3"]  # K of the photo.
    camera_is_assumed: bool  # K was not given: depth is as good as the assumed field of view.


class HandMeshPredictor:
    """Finds the meshes of hands whose places in a photo are known.

    The network is compiled once for each of 1, 2, 4 and 8 hands, whatever the photo's size.

    Attributes:
        weights_sha256: tells answers of one training state from those of another.
    """

    def __init__(self, network: Network, hand: HandModel, params: Any, stats: Any):
        self.hand = hand
        self._size = network.image_size
        graphdef, folded = fold(network.eval_graphdef, params, stats)
        self._arrays = folded, {}
        # Of what was trained: folded arrays differ from backend to backend.
        self.weights_sha256 = digest({"params": params, "stats": stats})
        self._step = make_crop_step(graphdef, hand.joint_regressor, network.image_size)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "HandMeshPredictor":
        """The predictor of a run's workdir (its newest checkpoint), or of a weights file.

        Raises:
            FileNotFoundError: if there is no checkpoint, or no config beside it.
            ValueError: if it is damaged, or another hand's.
        """
        path = Path(path)
        config = load_config(path)
        config.eval.checkpoint = str(path) if path.is_file() else "newest"
        return cls.from_config(config, path)

    @classmethod
    def from_config(cls, config: Config, workdir: Path) -> "HandMeshPredictor":
        """The predictor of the checkpoint that `config.eval.checkpoint` names.

        Raises:
            FileNotFoundError, ValueError: as `restore_eval_state`.
        """
        enable_compilation_cache()
        hand = load_hand(config)
        network = create_network(config, hand, abstract=True)
        state = restore_eval_state(network, workdir, config.eval.checkpoint)
        return cls(network, hand, state.params, state.stats)

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray | Sequence | None = None,
        handedness: str | Sequence[str] = "right",
        K: np.ndarray | Sequence | None = None,
    ) -> PredictedHands:
        """The hands in these boxes.

        Args:
            image: RGB, uint8, (h, w, 3), of any size; one channel or an alpha channel is converted
                with a warning.
            boxes: (x, y, width, height) of each hand in pixels, or of one; None if the photo is a
                crop of one hand.
            handedness: "right" or "left" for all, or for each box.
            K: intrinsic matrix of the whole photo; None assumes one, and says so in the result.

        Raises:
            ValueError: if the image is of another kind, a box has no area or lies outside, K is
                singular, or a handedness is unknown or missing.
        """
        photo, note = as_photo(image)
        height, width, _ = photo.shape
        if K is None:
            intrinsics = assumed_intrinsics(width, height)
        else:
            intrinsics = check_intrinsics(K)
            note = "; ".join(filter(None, (note, misfit(intrinsics, width, height))))
        if note:
            warnings.warn(note, stacklevel=2)
        if boxes is None:
            squares_px = square_of_photo(width, height)
        else:
            boxes_px = np.asarray(boxes, np.float64)
            boxes_px = boxes_px.reshape(-1, 4) if boxes_px.shape in {(4,), (0,)} else boxes_px
            if boxes_px.ndim != 2 or boxes_px.shape[1] != 4:
                raise ValueError(
                    f"boxes have shape {boxes_px.shape}: they must be (hands, 4), "
                    "(x, y, width, height) each"
                )
            squares_px = squares_around(check_boxes(boxes_px, width, height))
        is_left = _is_left(handedness, len(squares_px))
        return self._predict(photo, squares_px, is_left, intrinsics, camera_is_assumed=K is None)

    def _predict(
        self,
        photo: Photo,
        squares_px: Float[np.ndarray, "k 4"],
        is_left: Bool[np.ndarray, " k"],
        intrinsics: Float[np.ndarray, "3 3"],
        *,
        camera_is_assumed: bool,
    ) -> PredictedHands:
        """Left hands are looked at in a mirror, where they are right hands."""
        width, n = photo.shape[1], len(is_left)
        flipped_px = mirrored_boxes(squares_px, width)
        flipped_k = mirrored_intrinsics(intrinsics, width)
        matrices = [
            crop_matrix(flipped_px[i] if is_left[i] else squares_px[i], self._size)
            for i in range(n)
        ]
        crops = [
            crop(photo[:, ::-1] if is_left[i] else photo, matrices[i], self._size) for i in range(n)
        ]
        cameras = [flipped_k if left else intrinsics for left in is_left]
        hands = self._answer(crops, matrices, cameras)
        mirror = np.ones((n, 1, 3), np.float32)
        mirror[is_left, :, 0] = -1
        landmarks_px = hands["landmarks_px"].copy()
        landmarks_px[is_left, :, 0] = width - 1 - landmarks_px[is_left, :, 0]
        joints_m = hands["joints_m"] * mirror
        faces = self.hand.faces
        return PredictedHands(
            verts_m=hands["verts_m"] * mirror,
            joints_m=joints_m,
            landmarks_px=landmarks_px,
            root_m=joints_m[:, ROOT],
            root_covariance_m2=hands["root_covariance_m2"] * mirror * mirror.swapaxes(1, 2),
            noise_px=hands["noise_px"],
            faces=np.where(is_left[:, None, None], faces[None, :, ::-1], faces[None]),
            is_left=is_left,
            square_px=squares_px,
            intrinsics=intrinsics,
            camera_is_assumed=camera_is_assumed,
        )

    def _answer(self, crops: list, matrices: list, cameras: list) -> dict[str, np.ndarray]:
        """The fields of CameraHands, in as few calls as the largest bucket allows.

        What fills up a bucket is left out again; no hand at all is the filler alone.
        """
        if not crops:
            one = np.zeros((self._size, self._size, 3), np.uint8), np.eye(2, 3), np.eye(3)
            return {name: x[:0] for name, x in self._answer(*([x] for x in one)).items()}
        answers = []
        for start in range(0, len(crops), BUCKETS[-1]):
            rows = [each[start : start + BUCKETS[-1]] for each in (crops, matrices, cameras)]
            n = len(rows[0])
            filler = next(size for size in BUCKETS if size >= n) - n
            crops_of, matrices_of, cameras_of = (np.stack(x + x[:1] * filler) for x in rows)
            img_from_crop = np.stack([_inverse(matrix) for matrix in matrices_of])
            k = cameras_of.astype(np.float32)
            hands = self._step(*self._arrays, crops_of, img_from_crop.astype(np.float32), k)
            answers.append({name: x[:n] for name, x in jax.device_get(hands)._asdict().items()})
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}


def _inverse(crop_from_img: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    return np.linalg.inv(np.vstack([crop_from_img, [0, 0, 1]]))[:2]


def _is_left(handedness: str | Sequence[str], n: int) -> Bool[np.ndarray, " k"]:
    sides = [handedness] * n if isinstance(handedness, str) else list(handedness)
    unknown = [side for side in sides if side not in SIDES]
    if unknown or (isinstance(handedness, str) and handedness not in SIDES):
        raise ValueError(f"handedness={handedness!r} must be one of {SIDES}, for all or each box")
    if len(sides) != n:
        raise ValueError(f"handedness has {len(sides)} entries for {n} boxes: give one for each")
    return np.array([side == "left" for side in sides], bool)
