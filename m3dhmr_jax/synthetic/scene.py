"""Who is in the picture: a posed hand with its arm and what it holds, all seen well enough.

Axes: v hand vertices, n = 21 landmarks, m drawn vertices, f faces.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand import HandDetails, HandModel, hand_id, load_builtin, load_details
from m3dhmr_jax.synthetic import arm as arms
from m3dhmr_jax.synthetic.camera import place_hand, project, sample_intrinsics, sample_view
from m3dhmr_jax.synthetic.kinematics import Posed, pose
from m3dhmr_jax.synthetic.occluders import Thing, sample_thing
from m3dhmr_jax.synthetic.poses import Capsules, fit_capsules, sample_articulation, sample_shape
from m3dhmr_jax.synthetic.raster import FAR_M, depth_map
from m3dhmr_jax.synthetic.recipe import SIDE_PX, Recipe
from m3dhmr_jax.synthetic.surface import RING_REACH_M, Surface, build_surface, refine
from m3dhmr_jax.synthetic.transfer import transfer_details

ARM_MUST_LEAVE = 0.93  # Share of the hand that its own arm may not hide.
THINGS_MUST_LEAVE = 0.62
THINGS_MAY_HIDE = 0.45  # Share of the 21 landmarks: fingers matter more than their area.
ARM_NEAREST_M = 0.2  # An arm closer to the camera than this would fill the picture.
CHECK_PER_PX = 0.375  # Hiding is judged in a small picture.
MIN_HAND_PX2 = 900.0
ARM_TRIES, THING_TRIES, SCENE_TRIES = 6, 10, 200


class Kit(NamedTuple):
    """A hand and all that is computed from it once."""

    hand: HandModel
    details: HandDetails
    surface: Surface
    capsules: Capsules


class Scene(NamedTuple):
    """Geometry in the camera frame, metres, and the labels."""

    intrinsics: Float[np.ndarray, "3 3"]
    verts_m: Float[np.ndarray, "v 3"]
    joints_m: Float[np.ndarray, "n 3"]
    body_m: Float[np.ndarray, "m 3"]  # Hand and arm as drawn.
    sleeve: tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "g 3"]] | None
    things: tuple[Thing, ...]


def make_kit(hand: HandModel) -> Kit:
    """Prepares a hand for drawing; what only the built-in hand knows of itself is carried over.

    Raises:
        ValueError: if the hand's surface is not open at the wrist and only there.
    """
    builtin, details = load_builtin(), load_details()
    if hand_id(hand) != hand_id(builtin):
        details = transfer_details(hand, builtin, details)
    return Kit(hand, details, build_surface(hand, details), fit_capsules(hand))


def sample_arm(rng: np.random.Generator) -> functools.partial:
    """A randomly bent arm that still needs its start, side and stations."""
    return functools.partial(
        arms.bend_arm,
        flexion_rad=np.radians(np.clip(rng.normal(0, 14), -35, 35)),
        deviation_rad=np.radians(np.clip(rng.normal(0, 9), -20, 20)),
        elbow_rad=np.radians(rng.uniform(20, 90)),
        elbow_turn_rad=rng.uniform(0, 2 * np.pi),
    )


def visible_share(
    hand_depth: Float[np.ndarray, "s s"], other_depth: Float[np.ndarray, "s s"]
) -> float:
    """Share of the hand's picture that nothing else hides."""
    hand = hand_depth < FAR_M
    return float((hand_depth <= other_depth)[hand].mean())


def hidden_share(
    points_m: Float[np.ndarray, "n 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    other_depth: Float[np.ndarray, "s s"],
) -> float:
    """Share of points that lie behind what `other_depth` shows."""
    cells = np.rint((project(points_m, intrinsics) + 0.5) * CHECK_PER_PX - 0.5).astype(int)
    column, row = np.clip(cells, 0, len(other_depth) - 1).T
    return float((other_depth[row, column] < points_m[:, 2]).mean())


def arm_is_fine(
    arm_m: Float[np.ndarray, "a 3"], rim: int, intrinsics: Float[np.ndarray, "3 3"]
) -> bool:
    """Whether the arm keeps away from the camera and its end lies outside the picture."""
    if arm_m[:, 2].min() < ARM_NEAREST_M:
        return False
    end = project(arm_m[-rim - 1 :].astype(np.float64), intrinsics)
    low, high = end.min(0), end.max(0)
    return bool((high < 0).any() or (low > SIDE_PX - 1).any())


def _place_arm(rng, kit: Kit, posed: Posed, intrinsics, hand_depth):
    """Arm vertices and the bent arm, or None where no try leaves the hand visible."""
    rim, turn = kit.surface.rim, posed.turns[0]
    rim_m = (posed.verts_m[rim] - posed.skeleton_m[0]) @ turn
    outward = float(np.sign(rim_m[:, 0].mean()))
    n_hand = len(kit.hand.verts_m)
    for _ in range(ARM_TRIES):
        bent = sample_arm(rng)
        arm = bent(rim_m.mean(0), outward, reach_m=RING_REACH_M)
        arm_m = arms.arm_vertices(rim_m, arm) @ turn.T + posed.skeleton_m[0]
        if not arm_is_fine(arm_m, len(rim), intrinsics):
            continue
        coarse = np.concatenate([posed.verts_m, arm_m]).astype(np.float32)
        faces = kit.surface.coarse_faces[len(kit.hand.faces) :]
        clear = faces[(faces >= n_hand).all(1)]
        depth = depth_map(coarse, clear, intrinsics, SIDE_PX, CHECK_PER_PX)
        if visible_share(hand_depth, depth) >= ARM_MUST_LEAVE:
            return coarse, functools.partial(bent, rim_m.mean(0), outward), rim_m
    return None


def _sleeve(rng, posed: Posed, bent, rim_m):
    start = rng.uniform(0.012, 0.14)
    reach = np.concatenate(
        [[start], np.linspace(start + 0.0005, RING_REACH_M[-1], arms.SLEEVE_RINGS)]
    )
    radius = float(np.linalg.norm((rim_m - rim_m.mean(0))[:, 1:], axis=1).max())
    local, faces = arms.sleeve_mesh(rng, radius, bent(reach_m=reach), reach)
    return (local @ posed.turns[0].T + posed.skeleton_m[0]).astype(np.float32), faces


def _things(rng, posed: Posed, joints_m, intrinsics, hand_depth) -> tuple[Thing, ...]:
    palm_normal = -posed.turns[0][:, 1].astype(np.float64)
    for _ in range(THING_TRIES):
        things = tuple(sample_thing(rng, joints_m, palm_normal) for _ in range(rng.integers(1, 3)))
        depth = np.full_like(hand_depth, FAR_M)
        for thing in things:
            here = depth_map(thing.verts_m, thing.faces, intrinsics, SIDE_PX, CHECK_PER_PX)
            depth = np.minimum(depth, here)
        hidden = hidden_share(joints_m, intrinsics, depth)
        if visible_share(hand_depth, depth) >= THINGS_MUST_LEAVE and hidden <= THINGS_MAY_HIDE:
            return things
    return ()


def _try_scene(rng: np.random.Generator, kit: Kit, recipe: Recipe) -> Scene | None:
    shape = sample_shape(rng, len(kit.hand.shape_basis), recipe.shape_limit)
    rotations = sample_articulation(rng, kit.hand, kit.details, kit.capsules, shape, recipe)
    rotations[0] = sample_view(rng, recipe)
    intrinsics = sample_intrinsics(rng, recipe)
    posed = pose(kit.hand, rotations, shape)
    regressor = kit.hand.joint_regressor
    root = regressor[0] @ posed.verts_m
    shift = place_hand(rng, posed.verts_m.astype(np.float64), root, intrinsics, recipe)
    if shift is None:
        return None
    moved = shift.astype(np.float32)
    posed = Posed(posed.verts_m + moved, posed.skeleton_m + moved, posed.turns)
    hand_depth = depth_map(posed.verts_m, kit.hand.faces, intrinsics, SIDE_PX, CHECK_PER_PX)
    if (hand_depth < FAR_M).sum() < MIN_HAND_PX2 * CHECK_PER_PX**2:
        return None
    placed = _place_arm(rng, kit, posed, intrinsics, hand_depth)
    if placed is None:
        return None
    coarse, bent, rim_m = placed
    xyz = (regressor @ posed.verts_m).astype(np.float64)
    sleeve = _sleeve(rng, posed, bent, rim_m) if rng.random() < recipe.sleeve_probability else None
    occluded = rng.random() < recipe.occluder_probability
    things = _things(rng, posed, xyz, intrinsics, hand_depth) if occluded else ()
    return Scene(intrinsics, posed.verts_m, xyz, refine(coarse, kit.surface), sleeve, things)


def sample_scene(rng: np.random.Generator, kit: Kit, recipe: Recipe) -> Scene:
    """A random scene in which the hand fits the picture and can be seen.

    Raises:
        ValueError: if the recipe makes that practically impossible.
    """
    for _ in range(SCENE_TRIES):
        scene = _try_scene(rng, kit, recipe)
        if scene is not None:
            return scene
    raise ValueError(
        f"{SCENE_TRIES} scenes in a row did not fit the picture: widen "
        f"hand_box_px={recipe.hand_box_px}, root_depth_m={recipe.root_depth_m} or "
        f"focal_px={recipe.focal_px}"
    )
