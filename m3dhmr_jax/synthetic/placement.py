"""Places a scene anywhere in a photo: mirrored for a left hand, turned towards its pixel.

A scene is sampled in a camera that looks straight at the hand. Turning everything about the camera
moves it in the photo and changes nothing else, so all that the scene was checked for still holds.

Axes: n = 21 joints, v hand vertices, m rendered vertices, a arm vertices, r = rim of the wrist.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.math3d import axis_rotation, shortest_rotation, unit
from m3dhmr_jax.synthetic.camera import is_beyond_border, project
from m3dhmr_jax.synthetic.recipe import Recipe
from m3dhmr_jax.synthetic.scene import ARM_NEAREST_M, RenderAssets, Scene, sample_scene
from m3dhmr_jax.synthetic.surface import RING_DISTANCE_M, Surface
from m3dhmr_jax.types import SIDES

# The hand's box in the camera that looks straight at it; its focal length gives the size.
BOX_PX = 105.0
MAX_DEPTH_M = 20.0
MIN_SIZE_01 = 0.02  # Of the photo's longer side.
# The upper arm, beyond this ring, is lengthened until it leaves the photo.
STRETCHED_RING = 16
MAX_STRETCH_M = 1.2
STRETCHES_M = np.linspace(0, MAX_STRETCH_M, 25)
ROLLS = 24
# What an arm that comes from above costs, relative to metres of stretch: people reach upwards.
FROM_ABOVE_COST, RANDOM_COST = 0.5, 0.25


class Placement(NamedTuple):
    """Where a hand appears in a photo."""

    handedness: str  # "right" or "left".
    centre_px: tuple[float, float]
    # Longer side of the hand's box.
    size_px: float


class PlacedHand(NamedTuple):
    """A hand in the photo's camera, and its surface, whose faces a left hand has reversed."""

    placement: Placement
    scene: Scene
    surface: Surface

    @property
    def landmarks_px(self) -> Float[np.ndarray, "n 2"]:
        return project(self.scene.joints_m, self.scene.intrinsics)

    @property
    def box_px(self) -> Float[np.ndarray, "4"]:
        """x, y, width and height of the box around all vertices."""
        points_px = project(self.scene.verts_m.astype(np.float64), self.scene.intrinsics)
        return np.concatenate([points_px.min(0), np.ptp(points_px, axis=0)])


def transform_scene(scene: Scene, matrix: Float[np.ndarray, "3 3"]) -> Scene:
    """All points multiplied by a rotation, or by a reflection, which reverses the faces."""
    turn = -1 if np.linalg.det(matrix) < 0 else 1

    def move(points_m):
        return (points_m @ matrix.T).astype(points_m.dtype)

    return scene._replace(
        verts_m=move(scene.verts_m),
        joints_m=move(scene.joints_m),
        body_m=move(scene.body_m),
        sleeve=scene.sleeve and (move(scene.sleeve[0]), scene.sleeve[1][:, ::turn]),
        occluders=tuple(
            occluder._replace(verts_m=move(occluder.verts_m), faces=occluder.faces[:, ::turn])
            for occluder in scene.occluders
        ),
    )


def upper_arm_m(scene: Scene, surface: Surface) -> Float[np.ndarray, "2 3"]:
    """Centres of the rings at the beginning of the stretched part and at the arm's end."""
    rings = len(RING_DISTANCE_M)
    n_hand = len(scene.verts_m)
    arm_m = scene.body_m[n_hand : n_hand + rings * len(surface.rim)].astype(np.float64)
    return arm_m.reshape(rings, -1, 3)[[STRETCHED_RING, -1]].mean(axis=1)


def arm_end_m(scene: Scene, surface: Surface) -> Float[np.ndarray, "a 3"]:
    """The arm's last ring and the vertex that closes it."""
    stop = len(scene.verts_m) + len(RING_DISTANCE_M) * len(surface.rim) + 1
    return scene.body_m[stop - len(surface.rim) - 1 : stop].astype(np.float64)


def lengthen_arm(scene: Scene, surface: Surface, stretch_m: float) -> Scene:
    """The scene with a longer upper arm and sleeve; the hand does not move."""
    start_m, end_m = upper_arm_m(scene, surface)
    length_m, direction = np.linalg.norm(end_m - start_m), unit(end_m - start_m)
    from_start_m = RING_DISTANCE_M - RING_DISTANCE_M[STRETCHED_RING]
    along = np.repeat(np.clip(from_start_m / from_start_m[-1], 0, 1), len(surface.rim))
    along = np.concatenate([np.zeros(len(scene.verts_m)), along, [1.0]])
    along = np.concatenate([along, along[surface.edges].mean(1)])

    def moved(points_m, along):
        return (points_m + stretch_m * along[:, None] * direction).astype(np.float32)

    sleeve = scene.sleeve
    if sleeve is not None:
        # An elbow bends by 90 degrees at most, so the forearm's part never lies along the other.
        beyond = np.clip((sleeve[0] - start_m) @ direction / length_m, 0, 1)
        sleeve = moved(sleeve[0], beyond), sleeve[1]
    return scene._replace(body_m=moved(scene.body_m, along), sleeve=sleeve)


def needed_stretch_m(
    end_m: Float[np.ndarray, "a 3"],
    direction: Float[np.ndarray, "3"],
    intrinsics: Float[np.ndarray, "3 3"],
    size_px: tuple[int, int],
) -> float | None:
    """How far the arm's end must move along the arm to lie outside the photo; None: it cannot."""
    for stretch_m in STRETCHES_M:
        points_m = end_m + stretch_m * direction
        if points_m[:, 2].min() < ARM_NEAREST_M:
            return None
        if is_beyond_border(project(points_m, intrinsics), *size_px):
            return float(stretch_m)
    return None


def _facing_recipe(
    recipe: Recipe,
    size_px: float,
    intrinsics: Float[np.ndarray, "3 3"],
    ray: Float[np.ndarray, "3"],
) -> Recipe:
    """The recipe in a camera that looks along `ray` and makes the hand BOX_PX large."""
    # Off the axis, a photo enlarges by 1 / cos^2 radially and by 1 / cos across.
    off_axis = (np.linalg.norm(ray) / ray[2]) ** 1.5
    focal_px = intrinsics[0, 0] * off_axis * BOX_PX / size_px
    return dataclasses.replace(
        recipe,
        focal_px=(0.999 * focal_px, focal_px),
        root_depth_m=(ARM_NEAREST_M, MAX_DEPTH_M),
        hand_box_px=(BOX_PX - 1, BOX_PX + 1),
    )


def _is_inside(points_px: Float[np.ndarray, "v 2"], size_px: tuple[int, int]) -> bool:
    return bool((points_px > 0).all() and (points_px < np.array(size_px) - 1).all())


def try_placement(
    rng: np.random.Generator,
    assets: RenderAssets,
    recipe: Recipe,
    placement: Placement,
    intrinsics: Float[np.ndarray, "3 3"],
    size_px: tuple[int, int],
) -> PlacedHand | None:
    """A random scene at its place in the photo, or None if hand or arm does not fit.

    The roll about the line of sight is random among those for which the arm leaves the photo
    soon, rather at the bottom than at the top.
    """
    ray = np.linalg.solve(intrinsics, [*placement.centre_px, 1.0])
    scene = sample_scene(rng, assets, _facing_recipe(recipe, placement.size_px, intrinsics, ray))
    scene, surface = scene._replace(intrinsics=intrinsics), assets.surface
    if placement.handedness == "left":
        scene = transform_scene(scene, np.diag([-1.0, 1.0, 1.0]))
        surface = surface._replace(faces=surface.faces[:, ::-1])
    aim = shortest_rotation(np.array([0.0, 0.0, 1.0]), ray)
    end_m, verts_m = arm_end_m(scene, surface), scene.verts_m.astype(np.float64)
    direction = unit(np.diff(upper_arm_m(scene, surface), axis=0)[0])
    best: tuple[float, float, Float[np.ndarray, "3 3"]] | None = None
    for roll_rad in rng.uniform(0, 2 * np.pi, ROLLS):
        turn = aim @ axis_rotation(np.array([0.0, 0.0, 1.0]), roll_rad)
        verts_px = project(verts_m @ turn.T, intrinsics)
        if not _is_inside(verts_px, size_px):
            continue
        stretch_m = needed_stretch_m(end_m @ turn.T, turn @ direction, intrinsics, size_px)
        if stretch_m is None:
            continue
        end_px = project(end_m @ turn.T, intrinsics).mean(0)
        upwards = max(0.0, -unit(end_px - verts_px.mean(0))[1])
        cost = stretch_m + FROM_ABOVE_COST * upwards + RANDOM_COST * rng.random()
        if best is None or cost < best[0]:
            best = cost, stretch_m, turn
    if best is None:
        return None
    _, stretch_m, turn = best
    turned = lengthen_arm(transform_scene(scene, turn), surface, stretch_m)
    return PlacedHand(placement, turned, surface)


def check_placement(placement: Placement, size_px: tuple[int, int]) -> None:
    """Raises UserError for an unknown side of the body or a hand that cannot fit the photo."""
    if placement.handedness not in SIDES:
        raise UserError(f"handedness={placement.handedness!r} must be one of {', '.join(SIDES)}")
    (x, y), (width, height) = placement.centre_px, size_px
    low, high = MIN_SIZE_01 * max(size_px), min(size_px)
    if not (0 <= x < width and 0 <= y < height and low <= placement.size_px <= high):
        raise UserError(
            f"a hand of {placement.size_px:.0f} px at ({x:.0f}, {y:.0f}) does not fit a photo of "
            f"{width} x {height} px: its centre must lie inside and its size in "
            f"{low:.0f}..{high} px"
        )
