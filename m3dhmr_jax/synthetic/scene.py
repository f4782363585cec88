"""Scene sampling: a posed hand with its arm and occluders, sufficiently visible.

Axes: v hand vertices, n = 21 joints, m rendered vertices, f faces, a arm vertices, k g those of a
sleeve, s side of a depth map.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandDetails, HandModel, hand_id, load_builtin, load_details
from m3dhmr_jax.hand.capsules import Capsules, fit_capsules
from m3dhmr_jax.synthetic import arm as arms
from m3dhmr_jax.synthetic.camera import (
    is_beyond_border,
    place_hand,
    project,
    sample_intrinsics,
    sample_view,
)
from m3dhmr_jax.synthetic.kinematics import Posed, pose
from m3dhmr_jax.synthetic.occluders import Occluder, sample_bottle, sample_occluder
from m3dhmr_jax.synthetic.poses import sample_articulation, sample_shape
from m3dhmr_jax.synthetic.recipe import SIDE_PX, Recipe, happens
from m3dhmr_jax.synthetic.surface import RING_DISTANCE_M, Surface, build_surface, refine
from m3dhmr_jax.synthetic.transfer import transfer_details
from m3dhmr_jax.synthetic.wear import sample_ring, sample_wristband
from m3dhmr_jax.visualize.raster import FAR_M, depth_map

# Fractions of the hand's area that its own arm and the occluders leave visible.
ARM_MIN_VISIBLE = 0.93
OCCLUDERS_MIN_VISIBLE = 0.62
# Fraction of the 21 joints: fingers matter more than their area.
MAX_HIDDEN_JOINTS = 0.45
# An arm closer to the camera than this would fill the image.
ARM_NEAREST_M = 0.2
# Visibility is checked at low resolution.
CHECK_SAMPLES_PER_PX = 0.375
MIN_HAND_PX2 = 900.0
WRISTBAND_RINGS = (1, 5)  # Rings of the arm's vertices where a watch may be: 14 to 53 mm.
ARM_TRIES, OCCLUDER_TRIES, SCENE_TRIES = 6, 10, 200


class RenderAssets(NamedTuple):
    """A hand and everything computed from it once."""

    hand: HandModel
    details: HandDetails
    surface: Surface
    capsules: Capsules


class Scene(NamedTuple):
    """Geometry in the camera frame, metres, and the labels."""

    intrinsics: Float[np.ndarray, "3 3"]
    verts_m: Float[np.ndarray, "v 3"]
    joints_m: Float[np.ndarray, "n 3"]
    # Hand and arm as rendered.
    body_m: Float[np.ndarray, "m 3"]
    sleeve: tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "g 3"]] | None
    occluders: tuple[Occluder, ...]


def prepare_assets(hand: HandModel) -> RenderAssets:
    """Prepares a hand for rendering; details that only the built-in hand has are transferred.

    Raises:
        UserError: if the hand's surface is not open at the wrist and only there.
    """
    builtin, details = load_builtin(), load_details()
    if hand_id(hand) != hand_id(builtin):
        details = transfer_details(hand, builtin, details)
    return RenderAssets(hand, details, build_surface(hand, details), fit_capsules(hand))


def sample_arm(rng: np.random.Generator) -> functools.partial:
    """A randomly bent arm that still needs its start, side and ring distances."""
    return functools.partial(
        arms.bend_arm,
        flexion_rad=np.radians(np.clip(rng.normal(0, 14), -35, 35)),
        deviation_rad=np.radians(np.clip(rng.normal(0, 9), -20, 20)),
        elbow_rad=np.radians(rng.uniform(20, 90)),
        elbow_direction_rad=rng.uniform(0, 2 * np.pi),
    )


def visible_fraction(
    hand_depth: Float[np.ndarray, "s s"], other_depth: Float[np.ndarray, "s s"]
) -> float:
    """Fraction of the hand's samples that nothing else hides."""
    hand = hand_depth < FAR_M
    return float((hand_depth <= other_depth)[hand].mean())


def hidden_fraction(
    points_m: Float[np.ndarray, "n 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    other_depth: Float[np.ndarray, "s s"],
) -> float:
    """Fraction of points that lie behind the surface in `other_depth`."""
    cells = np.rint((project(points_m, intrinsics) + 0.5) * CHECK_SAMPLES_PER_PX - 0.5).astype(int)
    column, row = np.clip(cells, 0, len(other_depth) - 1).T
    return float((other_depth[row, column] < points_m[:, 2]).mean())


def arm_is_acceptable(
    arm_m: Float[np.ndarray, "a 3"], rim: int, intrinsics: Float[np.ndarray, "3 3"]
) -> bool:
    """Whether the arm keeps away from the camera and ends outside the image."""
    if arm_m[:, 2].min() < ARM_NEAREST_M:
        return False
    end_px = project(arm_m[-rim - 1 :].astype(np.float64), intrinsics)
    return is_beyond_border(end_px, SIDE_PX, SIDE_PX)


def _place_arm(rng, assets: RenderAssets, posed: Posed, intrinsics, hand_depth):
    """Hand and arm vertices, the bent arm and the rim, or None if the hand is always hidden."""
    rim, wrist = assets.surface.rim, posed.rotations[0]
    rim_m = (posed.verts_m[rim] - posed.skeleton_m[0]) @ wrist
    outward = float(np.sign(rim_m[:, 0].mean()))
    n_hand = len(assets.hand.verts_m)
    for _ in range(ARM_TRIES):
        bent = sample_arm(rng)
        arm = bent(rim_m.mean(0), outward, distance_m=RING_DISTANCE_M)
        arm_m = arms.arm_vertices(rim_m, arm) @ wrist.T + posed.skeleton_m[0]
        if not arm_is_acceptable(arm_m, len(rim), intrinsics):
            continue
        coarse = np.concatenate([posed.verts_m, arm_m]).astype(np.float32)
        faces = assets.surface.coarse_faces[len(assets.hand.faces) :]
        clear = faces[(faces >= n_hand).all(1)]
        depth = depth_map(coarse, clear, intrinsics, SIDE_PX, CHECK_SAMPLES_PER_PX)
        if visible_fraction(hand_depth, depth) >= ARM_MIN_VISIBLE:
            return coarse, functools.partial(bent, rim_m.mean(0), outward), rim_m
    return None


def _sample_sleeve(rng, posed: Posed, bent, rim_m):
    start = rng.uniform(0.012, 0.14)
    distance_m = np.concatenate(
        [[start], np.linspace(start + 0.0005, RING_DISTANCE_M[-1], arms.SLEEVE_RINGS)]
    )
    radius = float(np.linalg.norm((rim_m - rim_m.mean(0))[:, 1:], axis=1).max())
    local, faces = arms.sleeve_mesh(rng, radius, bent(distance_m=distance_m), distance_m)
    return (local @ posed.rotations[0].T + posed.skeleton_m[0]).astype(np.float32), faces


def _sample_occluders(
    rng, posed: Posed, joints_m, intrinsics, hand_depth, is_grip: bool
) -> tuple[Occluder, ...]:
    """What is held or in front; nothing if that always hides too much of the hand."""
    palm_normal = -posed.rotations[0][:, 1].astype(np.float64)
    for _ in range(OCCLUDER_TRIES):
        if is_grip:
            occluders = sample_bottle(rng, joints_m, palm_normal)
        else:
            count = rng.integers(1, 3)
            occluders = tuple(sample_occluder(rng, joints_m, palm_normal) for _ in range(count))
        depth = np.full_like(hand_depth, FAR_M)
        for occluder in occluders:
            here = depth_map(
                occluder.verts_m, occluder.faces, intrinsics, SIDE_PX, CHECK_SAMPLES_PER_PX
            )
            depth = np.minimum(depth, here)
        visible = visible_fraction(hand_depth, depth)
        hidden = hidden_fraction(joints_m, intrinsics, depth)
        if visible >= OCCLUDERS_MIN_VISIBLE and hidden <= MAX_HIDDEN_JOINTS:
            return occluders
    return ()


def _try_scene(rng: np.random.Generator, assets: RenderAssets, recipe: Recipe) -> Scene | None:
    hand = assets.hand
    shape = sample_shape(rng, len(hand.shape_basis), recipe.shape_limit)
    is_grip = happens(rng, recipe.grip_probability)
    rotations = sample_articulation(
        rng, hand, assets.details, assets.capsules, shape, recipe, is_grip
    )
    rotations[0] = sample_view(rng, recipe)
    intrinsics = sample_intrinsics(rng, recipe)
    posed = pose(hand, rotations, shape)
    root = hand.joint_regressor[0] @ posed.verts_m
    shift = place_hand(rng, posed.verts_m.astype(np.float64), root, intrinsics, recipe)
    if shift is None:
        return None
    moved = shift.astype(np.float32)
    posed = Posed(posed.verts_m + moved, posed.skeleton_m + moved, posed.rotations)
    hand_depth = depth_map(posed.verts_m, hand.faces, intrinsics, SIDE_PX, CHECK_SAMPLES_PER_PX)
    if (hand_depth < FAR_M).sum() < MIN_HAND_PX2 * CHECK_SAMPLES_PER_PX**2:
        return None
    placed = _place_arm(rng, assets, posed, intrinsics, hand_depth)
    if placed is None:
        return None
    coarse, bent, rim_m = placed
    joints_m = (hand.joint_regressor @ posed.verts_m).astype(np.float64)
    has_sleeve = rng.random() < recipe.sleeve_probability
    sleeve = _sample_sleeve(rng, posed, bent, rim_m) if has_sleeve else None
    occluders = ()
    if is_grip or rng.random() < recipe.occluder_probability:
        occluders = _sample_occluders(rng, posed, joints_m, intrinsics, hand_depth, is_grip)
    if happens(rng, recipe.ring_probability):
        occluders += (sample_ring(rng, hand, posed),)
    if happens(rng, recipe.wristband_probability) and sleeve is None:
        first = len(hand.verts_m) + rng.integers(*WRISTBAND_RINGS) * len(rim_m)
        occluders += sample_wristband(rng, coarse[first : first + len(rim_m)], posed)
    body_m = refine(coarse, assets.surface)
    return Scene(intrinsics, posed.verts_m, joints_m, body_m, sleeve, occluders)


def sample_scene(rng: np.random.Generator, assets: RenderAssets, recipe: Recipe) -> Scene:
    """A random scene in which the hand fits the image and is visible.

    Raises:
        UserError: if the recipe makes that practically impossible.
    """
    for _ in range(SCENE_TRIES):
        scene = _try_scene(rng, assets, recipe)
        if scene is not None:
            return scene
    raise UserError(
        f"none of {SCENE_TRIES} random scenes fits the image: widen "
        f"hand_box_px={recipe.hand_box_px}, root_depth_m={recipe.root_depth_m} or "
        f"focal_px={recipe.focal_px}"
    )
