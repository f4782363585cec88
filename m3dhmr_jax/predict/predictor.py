"""Hands of an image in camera space: the entry point for other programs.

Axes: k hands, n = 21 landmarks or joints, v vertices, f faces, h w image, s crop side.
Camera frame: x right, y down, z forward, metres. Pixels: centres on integers, (x, y) order.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.camera.silhouette import NO_EXTENT, SilhouetteExtent, silhouette_extent
from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.checkpoints.restore import NEWEST, restore_eval_state
from m3dhmr_jax.checkpoints.run_config import load_config
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import make_crop_step
from m3dhmr_jax.models.fast.folding import fold
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    check_intrinsics,
    intrinsics_mismatch,
    mirrored_intrinsics,
)
from m3dhmr_jax.predict.crops import (
    Image,
    check_boxes,
    crop,
    crop_matrix,
    crops_around,
    mirrored_boxes,
    whole_image_crop,
)
from m3dhmr_jax.predict.images import as_image
from m3dhmr_jax.predict.masks import Masks, boxes_of_masks, check_masks
from m3dhmr_jax.runtime.compilation_cache import enable_compilation_cache
from m3dhmr_jax.types import ROOT

# Hands per call of the device; larger numbers are split. Each size is compiled when first used.
BUCKETS = (1, 2, 4, 8)
SIDES = ("right", "left")


class PredictedHands(NamedTuple):
    """Hands in camera space, in the order of the boxes; NumPy arrays."""

    verts_m: Float[np.ndarray, "k v 3"]
    # FreiHAND order, regressed from the vertices.
    joints_m: Float[np.ndarray, "k n 3"]
    # Predicted by the network, pixels of the image.
    landmarks_px: Float[np.ndarray, "k n 2"]
    # The wrist, joints_m[:, 0].
    root_m: Float[np.ndarray, "k 3"]
    # Covariance of the hand's position: large where depth is uncertain.
    root_covariance_m2: Float[np.ndarray, "k 3 3"]
    # Reprojection noise between mesh and landmarks.
    noise_px: Float[np.ndarray, " k"]
    # Counter-clockwise seen from outside.
    faces: Int[np.ndarray, "k f 3"]
    # "right" or "left".
    handedness: tuple[str, ...]
    # The crop that the network processed: (x, y, side, side).
    crop_px: Float[np.ndarray, "k 4"]
    # K of the image.
    intrinsics: Float[np.ndarray, "3 3"]
    # Whether K was not given: depth is then only as good as the assumed field of view.
    camera_is_assumed: bool


class HandMeshPredictor:
    """Recovers the meshes of hands whose boxes in an image are known.

    The network is compiled once for each of 1, 2, 4 and 8 hands, for images of any size, and
    once more for hands with masks.

    Attributes:
        weights_sha256: identifies the weights that predictions come from.
    """

    def __init__(self, network: Network, hand: HandModel, params: Any, stats: Any):
        self.hand = hand
        self._size = network.image_size
        graphdef, folded = fold(network.eval_graphdef, params, stats)
        self._arrays = folded, {}
        # Hashes the trained arrays: folded ones differ from backend to backend.
        self.weights_sha256 = digest({"params": params, "stats": stats})
        self._step = make_crop_step(graphdef, hand.joint_regressor, network.image_size)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "HandMeshPredictor":
        """The predictor of a run's workdir (its newest valid checkpoint), or of a weights file.

        Raises:
            UserError: if there is no checkpoint or no config next to it, or it is corrupted or of
                another hand.
        """
        path = Path(path)
        config = load_config(path)
        enable_compilation_cache()
        hand = load_hand(config)
        network = create_network(config, hand, abstract=True)
        state = restore_eval_state(network, path, str(path) if path.is_file() else NEWEST)
        return cls(network, hand, state.params, state.stats)

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray | Sequence | None = None,
        handedness: str | Sequence[str] = "right",
        K: np.ndarray | Sequence | None = None,
        *,
        masks: np.ndarray | Sequence | None = None,
        freihand: bool = False,
    ) -> PredictedHands:
        """The hands in these boxes.

        Args:
            image: RGB, uint8, (h, w, 3), of any size; one channel or an alpha channel is converted
                with a warning.
            boxes: (x, y, width, height) of each hand in pixels, or of one; None: around the masks
                or, without masks, one hand that fills the image.
            handedness: "right" or "left" for all, or for each box.
            K: intrinsic matrix of the whole image; None: assumed, as the result reports.
            masks: (h, w) of each hand, or of one, non-zero on the hand, for a better depth; an
                empty mask counts as none, with a warning.
            freihand: the image is one of FreiHAND: without boxes, its evaluation's centred crop;
                without K, FreiHAND's field of view.

        Raises:
            UserError: if the image is of another kind, a box has no area or lies outside, K is
                singular, a mask is of another size, or a handedness is unknown or missing.
        """
        pixels, note = as_image(image)
        height, width, _ = pixels.shape
        if K is None:
            intrinsics = assumed_intrinsics(width, height, freihand=freihand)
        else:
            intrinsics = check_intrinsics(K)
            mismatch = intrinsics_mismatch(intrinsics, width, height)
            note = "; ".join(filter(None, (note, mismatch)))
        if note:
            warnings.warn(note, stacklevel=2)
        hand_masks = None if masks is None else check_masks(masks, height, width)
        if hand_masks is not None:
            empty = np.flatnonzero(~hand_masks.any(axis=(1, 2)))
            if len(empty):
                warnings.warn(f"empty masks, used as none: {empty.tolist()}", stacklevel=2)
            if boxes is None and not (len(hand_masks) == 1 and len(empty)):
                if len(empty):
                    raise UserError(
                        f"masks {empty.tolist()} are empty and there are no boxes: a hand without "
                        "a mask needs a box"
                    )
                boxes = boxes_of_masks(hand_masks)
        if boxes is None:
            crops_px = whole_image_crop(width, height, freihand=freihand)
        else:
            boxes_px = np.asarray(boxes, np.float64)
            boxes_px = boxes_px.reshape(-1, 4) if boxes_px.shape in {(4,), (0,)} else boxes_px
            if boxes_px.ndim != 2 or boxes_px.shape[1] != 4:
                raise UserError(
                    f"boxes have shape {boxes_px.shape}: they must be (hands, 4), "
                    "(x, y, width, height) each"
                )
            crops_px = crops_around(check_boxes(boxes_px, width, height))
        if hand_masks is not None and len(hand_masks) != len(crops_px):
            raise UserError(f"{len(hand_masks)} masks for {len(crops_px)} boxes: give one for each")
        sides = _check_handedness(handedness, len(crops_px))
        hands = self._predict(pixels, crops_px, sides, intrinsics, hand_masks)
        return hands._replace(camera_is_assumed=K is None)

    def _predict(
        self,
        image: Image,
        crops_px: Float[np.ndarray, "k 4"],
        sides: tuple[str, ...],
        intrinsics: Float[np.ndarray, "3 3"],
        masks: Masks | None,
    ) -> PredictedHands:
        """Left hands are mirrored to right hands for the network, and back afterwards."""
        width, n = image.shape[1], len(sides)
        is_left = np.array([side == "left" for side in sides], bool)
        mirrored_k = mirrored_intrinsics(intrinsics, width)
        network_crops_px = np.where(is_left[:, None], mirrored_boxes(crops_px, width), crops_px)
        columns = [slice(None, None, -1 if left else None) for left in is_left]
        matrices = [crop_matrix(each, self._size) for each in network_crops_px]
        inputs = [
            [
                crop(image[:, column], matrix, self._size)
                for column, matrix in zip(columns, matrices, strict=True)
            ],
            [_inverse(matrix).astype(np.float32) for matrix in matrices],
            [(mirrored_k if left else intrinsics).astype(np.float32) for left in is_left],
        ]
        extents = None
        if masks is not None and masks.any():
            extents = [
                silhouette_extent(mask[:, column]) if mask.any() else NO_EXTENT
                for mask, column in zip(masks, columns, strict=True)
            ]
        hands = self._run_batches(inputs, extents)
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
            handedness=sides,
            crop_px=crops_px,
            intrinsics=intrinsics,
            camera_is_assumed=False,
        )

    def _run_batches(
        self, inputs: list[list[np.ndarray]], extents: list[SilhouetteExtent] | None
    ) -> dict[str, np.ndarray]:
        """The fields of CameraHands, in as few calls as the largest bucket allows.

        Buckets are padded with copies of their first hand, which are dropped from the results.
        """
        n = len(inputs[0])
        if n == 0:  # One hand of padding, for the shapes.
            crop_rgb = np.zeros((self._size, self._size, 3), np.uint8)
            blank = [[crop_rgb], [np.eye(2, 3, dtype=np.float32)], [np.eye(3, dtype=np.float32)]]
            return {name: x[:0] for name, x in self._run_batches(blank, None).items()}
        results = []
        for start in range(0, n, BUCKETS[-1]):
            stop = min(start + BUCKETS[-1], n)
            size = next(size for size in BUCKETS if size >= stop - start)
            rows = [*range(start, stop)] + [start] * (size - (stop - start))
            batch: list[Any] = [np.stack([column[i] for i in rows]) for column in inputs]
            if extents is not None:
                columns = zip(*(extents[i] for i in rows), strict=True)
                batch.append(SilhouetteExtent(*map(np.stack, columns)))
            hands = self._step(*self._arrays, *batch)
            results.append(
                {name: x[: stop - start] for name, x in jax.device_get(hands)._asdict().items()}
            )
        return {name: np.concatenate([r[name] for r in results]) for name in results[0]}


def _inverse(crop_from_img: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    return np.linalg.inv(np.vstack([crop_from_img, [0, 0, 1]]))[:2]


def _check_handedness(handedness: str | Sequence[str], n: int) -> tuple[str, ...]:
    sides = (handedness,) * n if isinstance(handedness, str) else tuple(handedness)
    if set(sides) - set(SIDES) or (isinstance(handedness, str) and handedness not in SIDES):
        raise UserError(f"handedness={handedness!r} must be one of {SIDES}, for all or each box")
    if len(sides) != n:
        raise UserError(f"handedness has {len(sides)} entries for {n} boxes: give one for each")
    return sides
