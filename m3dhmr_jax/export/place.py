"""From a photo to the network's crop, and from its outputs to a hand in metres. NumPy only.

A copy of this file is written beside an exported network. It does what the package's predictor
does around the network, for one hand:

    crop_from_img = crop_matrix(square_of_box(box_px), size, "right")
    crop = cv2.warpAffine(*region(photo, crop_from_img, size), (size, size))
    ... run the network ...
    hand = place(vertices_m, joints_m, landmarks_px, crop_from_img, intrinsics(width, height))

Networks see right hands. The crop of a left hand is mirrored by its matrix, and `place` undoes
that; only the faces of its mesh must be turned over: `faces[:, ::-1]`.

Axes: n = 21 joints or landmarks in FreiHAND's order, v vertices, h w photo.
Camera frame: x right, y down, z forward, metres. Pixels: centres on integers, (x, y) order.
K is the intrinsic matrix (3, 3), pixels from camera coordinates.
"""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT, MIDDLE_BASE = 0, 9  # The wrist, and the joint at the base of the middle finger.
BOX_SCALE = 1.3  # Side of the crop over the longer side of the hand's box, as in training.
# Side of the box around a hand's mesh over that around its landmarks, and how far its centre lies
# below, towards the wrist.
MESH_PER_LANDMARKS, MESH_BELOW_LANDMARKS = 1.2, 0.075
ASSUMED_FOV_DEG = 60.0  # Across the longer side, between webcams and the main lens of phones.
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
EXIF_FOLDER, EXIF_FOCAL_35MM = 0x8769, 0xA405
# Root recovery: limits of depth, the subsets of landmarks of which the first estimate is the best,
# and the mixture of inliers and outliers.
NEAREST_M, FARTHEST_M = 0.05, 20.0
SUBSETS, SUBSET_SIZE, ROUNDS = 32, 4, 7
NOISE_FLOOR = 5e-4  # Fraction of the hand's extent in the image.
INLIER_PRIOR, INLIER_PRIOR_WEIGHT = 0.9, 5.0  # Prior inlier ratio, and its weight in landmarks.
ROUNDING = 1e-6  # Relative damping.


class Square(NamedTuple):
    """A square of the photo and the direction that the network sees upright."""

    # x + width / 2 of a box that covers the pixels from x to x + width - 1.
    centre_px: np.ndarray
    side_px: float
    # From the wrist to the base of the middle finger: 0 is up, positive is counter-clockwise.
    direction_rad: float


class Hand(NamedTuple):
    """A hand in the camera space of the photo."""

    vertices_m: np.ndarray  # (v, 3)
    joints_m: np.ndarray  # (n, 3)
    landmarks_px: np.ndarray  # (n, 2), pixels of the photo.
    root_covariance_m2: np.ndarray  # (3, 3), of the hand's position.
    noise_px: float  # Reprojection noise of the inlier landmarks.


class Root(NamedTuple):
    """The position of a hand's root in camera space."""

    t_m: np.ndarray  # (3,)
    covariance_m2: np.ndarray  # (3, 3)
    noise_px: float


def intrinsics(width: int, height: int, focal_35mm: float | None = None) -> np.ndarray:
    """K of a photo from its 35 mm equivalent focal length in mm; None: a field of view of 60°."""
    if focal_35mm:
        focal_px = focal_35mm / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)
    else:
        focal_px = 0.5 * max(width, height) / math.tan(math.radians(ASSUMED_FOV_DEG) / 2)
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])


def read_focal_35mm(photo: str | Path) -> int | None:
    """The 35 mm equivalent focal length of a photo's EXIF data, mm; None also without Pillow."""
    try:
        import PIL.Image

        with PIL.Image.open(photo) as image:
            return image.getexif().get_ifd(EXIF_FOLDER).get(EXIF_FOCAL_35MM)
    except Exception:  # Parsing damaged data raises anything, and a photo is good without them.
        return None


def square_of_box(box_px: np.ndarray, direction_rad: float = 0.0) -> Square:
    """The square around a hand's box (x, y, width, height), with a margin."""
    x, y, width, height = np.asarray(box_px, float)
    side_px = BOX_SCALE * max(width, height)
    return Square(np.array([x + width / 2, y + height / 2]), side_px, direction_rad)


def square_of_landmarks(landmarks_px: np.ndarray) -> Square:
    """The square around a hand whose landmarks (n, 2) are known, as of the previous frame."""
    direction_rad = hand_direction(landmarks_px)
    turned_px = landmarks_px @ _rotation(-direction_rad).T
    low, high = turned_px.min(axis=0), turned_px.max(axis=0)
    side_px = BOX_SCALE * max((high - low).max(), 1.0)
    centre_px = (low + high) / 2 @ _rotation(-direction_rad) + 0.5
    down = np.array([math.sin(direction_rad), math.cos(direction_rad)])
    centre_px = centre_px + MESH_BELOW_LANDMARKS * side_px * down
    return Square(centre_px, side_px * MESH_PER_LANDMARKS, direction_rad)


def hand_direction(landmarks_px: np.ndarray) -> float:
    """The direction of a hand in the photo, radians, as in `Square`."""
    dx, dy = landmarks_px[MIDDLE_BASE] - landmarks_px[ROOT]
    return math.atan2(-dx, -dy)


def _rotation(angle_rad: float) -> np.ndarray:
    """Rotates pixels counter-clockwise on the screen, where y points down."""
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[cosine, sine], [-sine, cosine]])


def crop_matrix(square: Square, size: int, side: str) -> np.ndarray:
    """Crop pixels from photo pixels, (2, 3), for crops of `size` px in which hands are right ones.

    Raises:
        ValueError: if `side` is neither "right" nor "left".
    """
    if side not in ("right", "left"):
        raise ValueError(f'side={side!r} must be "right" or "left": the network sees right hands')
    linear = size / square.side_px * _rotation(-square.direction_rad)
    centre_px = square.centre_px
    if side == "left":
        linear = np.diag([-1.0, 1.0]) @ linear
        # In a mirrored photo the box again covers the pixels from its x.
        centre_px = centre_px - [1, 0]
    return np.column_stack([linear, size / 2 - linear @ centre_px])


def region(
    photo: np.ndarray, crop_from_img: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photo (h, w, 3) that a crop shows, and crop pixels from its pixels (2, 3).

    Where the crop shrinks the photo more than twofold, blocks of pixels are averaged.

    Raises:
        ValueError: if the crop lies outside the photo.
    """
    linear, offset = crop_from_img[:, :2], crop_from_img[:, 2]
    if np.linalg.det(linear) < 0:  # A left hand: blocks start as in the mirrored photo.
        photo = photo[:, ::-1]
        offset = offset + linear[:, 0] * (photo.shape[1] - 1)
        linear = linear * [-1, 1]
    block = max(int(1 / np.hypot(*linear[0])), 1)
    corners = np.array([(x, y) for x in (0, size - 1) for y in (0, size - 1)])
    corners_px = (corners - offset) @ np.linalg.inv(linear).T
    left, top = np.maximum(np.floor(corners_px.min(axis=0)).astype(int) - block, 0)
    right, bottom = np.ceil(corners_px.max(axis=0)).astype(int) + block + 1
    part = np.ascontiguousarray(photo[top : max(bottom, 0), left : max(right, 0)])
    if part.size == 0:
        h, w = photo.shape[:2]
        raise ValueError(
            f"the crop lies outside the photo of {w} x {h} px: boxes are in its pixels"
        )
    if block > 1:
        h, w = (-(-length // block) for length in part.shape[:2])
        padded = np.zeros((h * block, w * block, 3), np.uint8)
        padded[: part.shape[0], : part.shape[1]] = part
        blocks = padded.reshape(h, block, w, block, 3)
        part = (blocks.mean(axis=(1, 3), dtype=np.float32) + 0.5).astype(np.uint8)
    first = np.array([left, top]) + (block - 1) / 2
    return part, np.column_stack([block * linear, offset + linear @ first])


def place(
    vertices_m: np.ndarray,
    joints_m: np.ndarray,
    landmarks_px: np.ndarray,
    crop_from_img: np.ndarray,
    k: np.ndarray,
) -> Hand:
    """Moves a network's outputs to where the photo's camera observes the landmarks.

    Vertices (v, 3) and joints (n, 3) are as in the crop, landmarks (n, 2) in pixels of the crop.
    """
    img_from_crop = np.linalg.inv(np.vstack([crop_from_img, [0, 0, 1]]))[:2]
    linear = img_from_crop[:, :2]
    seen_px = landmarks_px @ linear.T + img_from_crop[:, 2]
    turn = np.eye(3)  # Undoes rotation and mirroring of the crop.
    turn[:2, :2] = linear / math.sqrt(abs(np.linalg.det(linear)))
    joints, vertices = ((points - joints_m[ROOT]) @ turn.T for points in (joints_m, vertices_m))
    root = recover_root(joints, seen_px, k)
    return Hand(vertices + root.t_m, joints + root.t_m, seen_px, root.covariance_m2, root.noise_px)


def recover_root(joints_rel_m: np.ndarray, landmarks_px: np.ndarray, k: np.ndarray) -> Root:
    """The most plausible translation of root-relative joints (n, 3) seen at landmarks (n, 2).

    Landmarks are inliers with Gaussian noise, or outliers anywhere on the hand; both the noise and
    the ratio of inliers are estimated. The best of many closed-form estimates from few landmarks
    each is refined by expectation-maximisation with Gauss-Newton steps.
    """
    points, k = np.asarray(joints_rel_m, float), np.asarray(k, float)
    t_m, noise_px2 = _first_estimate(points, landmarks_px, k)
    extent_px = _extent_px(points, t_m[2], k)
    floor_px2 = (NOISE_FLOOR * extent_px) ** 2
    n, weights = len(points), np.ones(len(points))
    covariance, errors = np.eye(3), _errors_px(points + t_m, landmarks_px, k)
    for _ in range(ROUNDS):
        noise_px2 = max(noise_px2, floor_px2)
        ratio = (weights.sum() + INLIER_PRIOR * INLIER_PRIOR_WEIGHT) / (n + INLIER_PRIOR_WEIGHT)
        log_odds = math.log(ratio / (1 - ratio)) + math.log(extent_px**2 / (2 * noise_px2))
        log_odds = log_odds - (errors**2).sum(axis=1) / (2 * noise_px2)
        weights = (1 + np.tanh(log_odds / 2)) / 2  # The logistic function, without overflow.
        jacobians = _jacobians(points + t_m, k)
        weighted = (weights / noise_px2)[:, None, None] * jacobians
        information = np.einsum("nij,nik->jk", weighted, jacobians) + np.eye(3) / FARTHEST_M**2
        covariance = np.linalg.inv(information * (1 + ROUNDING * np.eye(3)))
        step_m = covariance @ np.einsum("nij,ni->j", weighted, errors)
        t_m = _in_front(t_m - step_m, points)
        errors = _errors_px(points + t_m, landmarks_px, k)
        freedom = max(2 * weights.sum() - 3, 1)
        noise_px2 = (weights[:, None] * errors**2).sum() / freedom
    return Root(t_m, covariance, math.sqrt(max(noise_px2, floor_px2)))


def _first_estimate(
    points: np.ndarray, landmarks_px: np.ndarray, k: np.ndarray
) -> tuple[np.ndarray, float]:
    """The translation that most landmarks support, and the variance of their noise, px^2."""
    rays = (landmarks_px - k[:2, 2]) @ np.linalg.inv(k[:2, :2]).T
    share = _subsets(len(points)) / SUBSET_SIZE
    # Least squares of `ray * depth - t_xy = offset` for each subset.
    offsets = points[:, :2] - rays * points[:, 2:]
    ray, offset = share @ rays, share @ offsets
    spread = (share @ rays**2 - ray**2).sum(axis=1)
    depth = (share @ (rays * offsets) - ray * offset).sum(axis=1) / np.maximum(spread, 1e-12)
    estimates = np.column_stack([ray * depth[:, None] - offset, depth])
    estimates = _in_front(estimates, points)
    errors = _errors_px(points + estimates[:, None], landmarks_px, k)
    floor_px2 = (NOISE_FLOOR * _extent_px(points, estimates[:, 2], k)) ** 2
    log_px2 = np.log((errors**2).sum(axis=-1) + floor_px2[:, None]).mean(axis=-1)
    best = log_px2.argmin()
    # The variance along an axis of Gaussian noise from its mean logarithm of squared lengths.
    return estimates[best], 0.5 * math.exp(log_px2[best] + np.euler_gamma)


@functools.cache
def _subsets(n: int) -> np.ndarray:
    """Which of n landmarks are in each subset (SUBSETS, n)."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(n), (SUBSETS, 1)), axis=1)
    return order < SUBSET_SIZE


def _in_front(t_m: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Clamps depths (..., 3): points at least NEAREST_M away, the root within FARTHEST_M."""
    depth = np.maximum(np.minimum(t_m[..., 2:], FARTHEST_M), NEAREST_M - points[:, 2].min())
    return np.concatenate([t_m[..., :2], depth], axis=-1)


def _errors_px(points_m: np.ndarray, landmarks_px: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Projected minus observed points (..., n, 2), pixels."""
    projected = points_m[..., :2] / points_m[..., 2:]
    return projected @ k[:2, :2].T + k[:2, 2] - landmarks_px


def _jacobians(points_m: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The derivatives (n, 2, 3) of projections by a translation."""
    x, y, z = points_m.T
    zero = np.zeros_like(z)
    by_point = np.array([[1 / z, zero, -x / z**2], [zero, 1 / z, -y / z**2]])
    return np.einsum("ij,jkn->nik", k[:2, :2], by_point)


def _extent_px(points: np.ndarray, depth_m: float | np.ndarray, k: np.ndarray) -> Any:
    """About a hand's length in the image, at each depth."""
    focal_px = math.sqrt(abs(np.linalg.det(k[:2, :2])))
    spread_m = math.sqrt(points.var(axis=0).sum() + 1e-12)
    return 2 * focal_px * spread_m / np.maximum(depth_m, NEAREST_M)
