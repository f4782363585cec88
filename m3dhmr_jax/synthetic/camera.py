"""Random pinhole cameras like FreiHAND's: 224 px, hand near the image centre.

Axes: n points. Camera frame and pixels as in `m3dhmr_jax.types`.
"""

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.math3d import axis_rotation, random_rotation
from m3dhmr_jax.synthetic.recipe import SIDE_PX, Recipe, happens

# Camera axes of a hand (fingers -x, palm -y, thumb +z) seen from the palm with its fingers up.
PALM_VIEW = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
CENTRE_JITTER_PX = 4.0


def sample_view(rng: np.random.Generator, recipe: Recipe) -> Float[np.ndarray, "3 3"]:
    """The hand's global rotation into the camera frame."""
    if recipe.tilt_deg is None:
        view = random_rotation(rng)
        return _uprighted(rng, view, recipe) if happens(rng, recipe.upright_probability) else view
    view = PALM_VIEW
    if rng.random() < 0.5:  # The back of the hand: half a turn about the fingers.
        view = axis_rotation(np.array([0.0, 1.0, 0.0]), np.pi) @ view
    direction = rng.uniform(0, 2 * np.pi)
    lean_axis = np.array([np.cos(direction), np.sin(direction), 0.0])
    lean = axis_rotation(lean_axis, np.radians(recipe.tilt_deg) * np.sqrt(rng.random()))
    in_plane = np.radians(rng.uniform(-recipe.in_plane_deg, recipe.in_plane_deg))
    return axis_rotation(np.array([0.0, 0.0, 1.0]), in_plane) @ lean @ view


def _uprighted(
    rng: np.random.Generator, view: Float[np.ndarray, "3 3"], recipe: Recipe
) -> Float[np.ndarray, "3 3"]:
    """The same view, rotated in the image plane so that the fingers point roughly upwards."""
    fingers = view @ np.array([-1.0, 0.0, 0.0])
    now = np.arctan2(fingers[0], -fingers[1])  # Clockwise from upright.
    wanted = np.radians(rng.uniform(-recipe.upright_deg, recipe.upright_deg))
    return axis_rotation(np.array([0.0, 0.0, 1.0]), wanted - now) @ view


def sample_intrinsics(rng: np.random.Generator, recipe: Recipe) -> Float[np.ndarray, "3 3"]:
    """K with square pixels and its principal point at the image centre."""
    focal = rng.uniform(*recipe.focal_px)
    return np.array([[focal, 0, SIDE_PX / 2], [0, focal, SIDE_PX / 2], [0, 0, 1]])


def project(
    points_cam_m: Float[np.ndarray, "n 3"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n 2"]:
    """Pixels of points in front of the camera."""
    homogeneous = points_cam_m @ intrinsics.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def is_beyond_border(points_px: Float[np.ndarray, "n 2"], width: int, height: int) -> bool:
    """Whether all points lie outside the same border of an image."""
    low, high = points_px.min(0), points_px.max(0)
    return bool((high < 0).any() or (low > np.array([width - 1, height - 1])).any())


def place_hand(
    rng: np.random.Generator,
    points_m: Float[np.ndarray, "n 3"],
    root_m: Float[np.ndarray, "3"],
    intrinsics: Float[np.ndarray, "3 3"],
    recipe: Recipe,
) -> Float[np.ndarray, "3"] | None:
    """The translation into the camera frame, or None where the hand does not fit.

    The longer side of the hand's box gets a size from the recipe, as far as the range of depths
    allows; three rounds of centring and scaling account for perspective.
    """
    focal, side_px = intrinsics[0, 0], rng.uniform(*recipe.hand_box_px)
    low, high = points_m.min(0), points_m.max(0)
    jitter_px = rng.uniform(-CENTRE_JITTER_PX, CENTRE_JITTER_PX, 2)
    depth = np.clip(focal * (high - low)[:2].max() / side_px, *recipe.root_depth_m)
    shift = np.array([0.0, 0.0, depth]) - root_m
    for _ in range(3):
        uv = project(points_m + shift, intrinsics)
        box_low, box_high = uv.min(0), uv.max(0)
        grow = (box_high - box_low).max() / side_px
        root_depth = np.clip((root_m + shift)[2] * grow, *recipe.root_depth_m)
        offset_px = SIDE_PX / 2 + jitter_px - (box_low + box_high) / 2
        shift[:2] += offset_px * root_depth / focal
        shift[2] = root_depth - root_m[2]
    uv = project(points_m + shift, intrinsics)
    extent_px = np.abs(uv - SIDE_PX / 2).max()
    return shift if extent_px < recipe.hand_box_px[1] / 2 + 2 * CENTRE_JITTER_PX else None
