"""Hands of an image in camera space: the entry point for other programs.

Axes: k hands, n = 21 landmarks or joints, v vertices, h w image.
Camera frame: x right, y down, z forward, metres. Pixels: centres on integers, (x, y) order.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.camera.silhouette import NO_EXTENT, SilhouetteExtent, silhouette_extent
from m3dhmr_jax.checkpoints.builtin import builtin_network
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel, load_builtin, load_mano
from m3dhmr_jax.predict.arguments import (
    boxes_or_masks,
    check_box_array,
    check_camera,
    check_image,
    check_landmarks,
    check_one_side,
)
from m3dhmr_jax.predict.cameras import assumed_intrinsics, mirrored_intrinsics
from m3dhmr_jax.predict.candidates import (
    Candidates,
    Landmarks,
    check_handedness,
    mirrored,
    seen,
    unseen,
)
from m3dhmr_jax.predict.crops import (
    Image,
    centred_box,
    crops_around,
    crops_of_landmarks,
    freihand_crop,
    hand_directions,
)
from m3dhmr_jax.predict.detector import MIN_HAND_PX, HandDetector
from m3dhmr_jax.predict.masks import Masks, check_masks
from m3dhmr_jax.predict.methods import FIT, NETWORK, Method, NetworkMethod
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.predict.runtimes import JAX, Runtime, find_runtime
from m3dhmr_jax.types import ROOT

# Below this score, or this probability of its side, a hand is marked as unsure.
UNSURE_SCORE, UNSURE_SIDE = 0.5, 0.7


class HandMeshPredictor:
    """Finds the hands of images and recovers their meshes.

    In JAX, a network is compiled once for each of 1, 2, 4 and 8 hands, for images of any size, and
    once more for hands with masks; the fit on a CPU once.

    Args:
        method: how meshes are recovered: "fit", the fit of the built-in hand to landmarks;
            "network", the built-in network; or any other method.
        detector: finds hands and their landmarks; default: the installed one. None with a network:
            hands need boxes, as they do if "network" finds no installed detector.
        runtime: what runs the networks that are loaded here: "jax"; "onnxruntime" or "openvino",
            which start faster and agree with JAX to rounding; or "openvino-bf16", which is faster
            on some CPUs, with errors of a millimetre. The fit is always JAX's.

    Raises:
        UserError: if the method or the runtime is unknown, the packages of the runtime are not
            installed, or the detector is needed and not installed.
    """

    def __init__(
        self,
        method: str | Method = FIT,
        detector: HandDetector | None = None,
        runtime: str = JAX,
    ):
        found = find_runtime(runtime)
        if isinstance(method, str):
            method = _named_method(method, found)
            detector = detector or _installed_detector(runtime)
        if detector is None and method.needs_landmarks:
            detector = HandDetector.load(runtime=runtime)
        self._method, self._detector = method, detector

    @classmethod
    def from_checkpoint(cls, path: str | Path, runtime: str = JAX) -> "HandMeshPredictor":
        """A network on the detector's crops; without an installed detector, on given boxes.

        `path` is a run's workdir, whose newest valid checkpoint is used, or a weights file.
        `runtime` as above.

        Raises:
            UserError: if there is no checkpoint or no config next to it, it is corrupted or of
                another hand, or the runtime is unknown or not installed.
        """
        network = find_runtime(runtime).load_network(Path(path))
        return cls(NetworkMethod(network), _installed_detector(runtime))

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: what is computed with, and no compiled programs."""
        return type(self), (self._method, self._detector)

    @property
    def hand(self) -> HandModel:
        """The hand whose meshes are predicted."""
        return self._method.hand

    @property
    def weights_sha256(self) -> str:
        """Identifies what predictions come from."""
        return self._method.weights_sha256

    def __call__(
        self,
        # Any: values of a wrong type are explained in one sentence.
        image: np.ndarray | Any,
        boxes: np.ndarray | Sequence | Any | None = None,
        handedness: str | Sequence[str | None] | Any | None = None,
        K: np.ndarray | Sequence | Any | None = None,
        *,
        masks: np.ndarray | Sequence | Any | None = None,
        landmarks: np.ndarray | Sequence | Any | None = None,
        freihand: bool = False,
        views: int = 1,
    ) -> PredictedHands:
        """The hands of an image: all that are found, or those in boxes.

        Args:
            image: RGB, uint8, (h, w, 3), of any size; one channel or an alpha channel is converted
                with a warning.
            boxes: (x, y, width, height) of each hand in pixels, or of one; None: around the masks
                or, without masks, of the hands that the detector finds.
            handedness: "right" or "left" for all, or for each box; None: as the detector says, or
                right without one.
            K: intrinsic matrix of the whole image; None: assumed, as the result reports.
            masks: (h, w) of each hand, or of one, non-zero on the hand, for a better depth; an
                empty mask counts as none, with a warning.
            landmarks: (n, 2) of each hand, or of one, in pixels and FreiHAND's order and
                convention, to which the hand is fitted instead of those of the detector.
            freihand: the image is one of FreiHAND: without K, FreiHAND's field of view; for a
                network without boxes, its evaluation's centred crop.
            views: looks at each hand that landmarks are averaged over, 1 to 6.

        Raises:
            UserError: if the image is of another kind, a box has no area or lies outside, no
                camera has this K, landmarks are not pixels of the image, a mask is of another
                size, a handedness is unknown or missing, or the detector is needed and not
                installed.
        """
        pixels = check_image(image)
        height, width, _ = pixels.shape
        intrinsics = assumed_intrinsics(width, height, freihand=freihand)
        if K is not None:
            intrinsics = check_camera(K, width, height)
        hand_masks = None if masks is None else check_masks(masks, height, width)
        if hand_masks is not None:
            boxes = boxes_or_masks(hand_masks, boxes)
        if landmarks is not None:
            landmarks_px = check_landmarks(landmarks, width, height)
            candidates = self.at_landmarks(landmarks_px, handedness)
        elif boxes is not None:
            boxes_px = check_box_array(boxes, width, height)
            candidates = self.in_boxes(pixels, boxes_px, handedness, intrinsics, views=views)
        elif freihand and not self._method.needs_landmarks:
            crops_px = freihand_crop(width, height)
            candidates = unseen(crops_px, check_handedness(handedness, 1))
        else:
            side = check_one_side(handedness)
            candidates = self.find(pixels, side, views=views)
            if freihand and not candidates.handedness:  # There is a hand in the centre.
                box_px = centred_box(width, height)
                candidates = self.in_boxes(pixels, box_px, side, intrinsics, views=views)
        if hand_masks is not None and len(hand_masks) != len(candidates.crop_px):
            raise UserError(
                f"{len(hand_masks)} masks for {len(candidates.crop_px)} boxes: give one for each"
            )
        hands = self.predict(pixels, candidates, intrinsics, hand_masks)
        return hands._replace(camera_is_assumed=K is None)

    def find(
        self,
        image: Image,
        handedness: str | None = None,
        *,
        views: int = 1,
        thorough: bool = True,
    ) -> Candidates:
        """The hands that the detector finds; their side is estimated if it is None.

        `thorough`: also small hands, and hands that fill the image.
        """
        if self._detector is None:
            HandDetector.load()  # Raises, unless it was installed in the meantime.
            raise UserError("the hand detector was installed after this program was started")
        detected = self._detector(image, views=views, thorough=thorough)
        if detected.too_small:
            warnings.warn(
                f"{detected.too_small} hands smaller than {MIN_HAND_PX:g} px were skipped",
                stacklevel=3,
            )
        if detected.too_many:
            found = len(detected.presence)
            warnings.warn(
                f"only the best {found} of {found + detected.too_many} hands are returned",
                stacklevel=3,
            )
        return seen(detected, (handedness,) * len(detected.presence))

    def in_boxes(
        self,
        image: Image,
        boxes_px: Float[np.ndarray, "k 4"],
        handedness: str | Sequence[str | None] | Any | None,
        intrinsics: Float[np.ndarray, "3 3"],
        *,
        views: int = 1,
    ) -> Candidates:
        """One candidate for each box; its direction comes from a first look."""
        sides = check_handedness(handedness, len(boxes_px))
        if self._method.needs_landmarks or (None in sides and self._detector is not None):
            assert self._detector is not None
            return seen(self._detector.in_boxes(image, boxes_px, views=views), sides)
        candidates = unseen(crops_around(boxes_px), sides)
        hands = self.predict(image, candidates, intrinsics, None)
        return candidates._replace(direction_rad=hand_directions(hands.landmarks_px))

    def follow(
        self, image: Image, landmarks_px: Float[np.ndarray, "k n 2"], sides: Sequence[str]
    ) -> Candidates:
        """The hands of the previous frame, whose landmarks are known."""
        if self._method.needs_landmarks:
            assert self._detector is not None
            detected = self._detector.refine(image, landmarks_px)
            return seen(detected, (None,) * len(sides))
        directions_rad = hand_directions(landmarks_px)
        crops_px = crops_of_landmarks(landmarks_px)
        return unseen(crops_px, tuple(sides))._replace(direction_rad=directions_rad)

    def at_landmarks(
        self,
        landmarks_px: Float[np.ndarray, "k n 2"],
        handedness: str | Sequence[str | None] | Any | None,
    ) -> Candidates:
        """Hands whose landmarks come from elsewhere.

        Raises:
            UserError: if the method is not the fit, or a handedness is unknown or missing.
        """
        if not self._method.needs_landmarks:
            raise UserError("landmarks are for the fit of a hand: use the method fit")
        n = len(landmarks_px)
        candidates = unseen(crops_of_landmarks(landmarks_px), check_handedness(handedness, n))
        return candidates._replace(
            direction_rad=hand_directions(landmarks_px),
            landmarks=Landmarks(landmarks_px, np.full((n, 21, 3), np.nan), np.zeros((n, 21))),
        )

    def predict(
        self,
        image: Image,
        candidates: Candidates,
        intrinsics: Float[np.ndarray, "3 3"],
        masks: Masks | None = None,
    ) -> PredictedHands:
        """The hands at the candidates; left hands are mirrored for the method, and back."""
        width = image.shape[1]
        is_left = np.array([side == "left" for side in candidates.handedness], bool)
        images = [image[:, ::-1] if left else image for left in is_left]
        ks = np.where(
            is_left[:, None, None], mirrored_intrinsics(intrinsics, width), intrinsics[None]
        )
        extents = None
        if masks is not None and masks.any():
            rows = [
                silhouette_extent(mask[:, ::-1] if left else mask) if mask.any() else NO_EXTENT
                for mask, left in zip(masks, is_left, strict=True)
            ]
            extents = SilhouetteExtent(*map(np.stack, zip(*rows, strict=True)))
        hands = self._method(images, mirrored(candidates, is_left, width), ks, extents)
        mirror = np.ones((len(is_left), 1, 3), np.float32)
        mirror[is_left, :, 0] = -1
        landmarks_px = hands.landmarks_px.copy()
        landmarks_px[is_left, :, 0] = width - 1 - landmarks_px[is_left, :, 0]
        joints_m = hands.joints_m * mirror
        is_unsure = ~(hands.score >= UNSURE_SCORE)
        is_unsure |= candidates.handedness_probability < UNSURE_SIDE
        faces = self.hand.faces
        return PredictedHands(
            verts_m=hands.verts_m * mirror,
            joints_m=joints_m,
            landmarks_px=landmarks_px,
            root_m=joints_m[:, ROOT],
            root_covariance_m2=hands.root_covariance_m2 * mirror * mirror.swapaxes(1, 2),
            noise_px=hands.noise_px,
            faces=np.where(is_left[:, None, None], faces[None, :, ::-1], faces[None]),
            handedness=candidates.handedness,
            handedness_probability=candidates.handedness_probability,
            score=hands.score,
            is_unsure=is_unsure,
            crop_px=candidates.crop_px,
            direction_rad=candidates.direction_rad,
            track=np.arange(len(is_left)),
            intrinsics=intrinsics,
            camera_is_assumed=False,
            method=self._method.name,
            pose=hands.pose,
        )


def _installed_detector(runtime: str) -> HandDetector | None:
    return HandDetector.load(runtime=runtime) if HandDetector.is_installed() else None


def _named_method(name: str, runtime: Runtime) -> Method:
    if name == FIT:
        return _fit(load_builtin())
    if name == NETWORK:
        return NetworkMethod(runtime.load_network(builtin_network()))
    raise UserError(
        f"method={name!r} must be {FIT!r} or {NETWORK!r}, the fit or the built-in network; for a "
        "network of your own use HandMeshPredictor.from_checkpoint"
    )


def _fit(hand: HandModel) -> Method:
    from m3dhmr_jax.predict.fit_method import FitMethod  # Imports JAX, which takes a second.

    return FitMethod(hand)


def load_predictor(
    checkpoint: str | Path | None,
    hand: Path | None,
    method: str | None = None,
    runtime: str = JAX,
) -> HandMeshPredictor:
    """The predictor of a checkpoint; without one that of `method`, default: the fit.

    Args:
        hand: MANO_RIGHT.pkl, to be fitted in place of the built-in hand.
        runtime: what runs its networks.

    Raises:
        UserError: if one of them cannot be used, or not together with another.
    """
    if checkpoint is not None:
        if method is not None:
            raise UserError(
                f"--method {method} and --checkpoint {checkpoint} are two methods: give one of them"
            )
        if hand is not None:
            raise UserError(f"--hand {hand} is for the fit; the hand of a checkpoint is its own")
        return HandMeshPredictor.from_checkpoint(checkpoint, runtime)
    if hand is None:
        return HandMeshPredictor(method or FIT, runtime=runtime)
    if method == NETWORK:
        raise UserError(f"--hand {hand} is for the fit; the built-in network has the built-in hand")
    return HandMeshPredictor(_fit(load_mano(hand)), runtime=runtime)
