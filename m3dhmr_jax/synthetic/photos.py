"""Photos of any size with several hands, right and left, near and far, and exact labels.

Every hand is rendered in the photo's own camera, at the photo's resolution, and hides what lies
behind it; all share lights, background and camera.

Axes: h w pixels, hs ws samples, s side of a depth map.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.synthetic.backgrounds import drop_shadow, sample_background
from m3dhmr_jax.synthetic.imaging import (
    apply_camera_response,
    pixel_coverage,
    sample_camera_response,
)
from m3dhmr_jax.synthetic.lights import Lights, render_shadow_map, sample_lights
from m3dhmr_jax.synthetic.placement import (
    BOX_PX,
    PlacedHand,
    Placement,
    check_placement,
    try_placement,
)
from m3dhmr_jax.synthetic.recipe import FULL, Recipe
from m3dhmr_jax.synthetic.render import (
    NEAR_WALL_PROBABILITY,
    SAMPLES_PER_PX,
    rasterise_scene,
    scene_meshes,
    shade_scene,
)
from m3dhmr_jax.synthetic.scene import RenderAssets, visible_fraction
from m3dhmr_jax.synthetic.skin import sample_skin
from m3dhmr_jax.types import SIDES
from m3dhmr_jax.visualize.raster import FAR_M, NEAR_M, depth_map

# Focal length over the longer side: 45 to 65 degrees of view.
FOCAL_PER_SIDE = (0.78, 1.2)
# A hand about this long is at least this far away, which determines the focal length of close-ups.
HAND_LENGTH_M, NEAREST_HAND_M = 0.17, 0.3
# FreiHAND's focal length relative to its image's width; wider views have less defocus blur.
FREIHAND_FOCAL_PER_SIDE = 1.9
# Other hands and arms hide at most the rest of a hand.
MIN_VISIBLE = 0.95
CHECK_SIDE = 256
PHOTO_SHADOW_SIDE = 1024  # The shadow map covers the arm as well as the hand.
HAND_TRIES, ARRANGEMENT_TRIES, LAYOUT_TRIES = 15, 12, 2000
# The smallest and the largest hand of random photos, relative to the longer side.
SIZE_01 = (0.08, 0.6)
MARGIN_01 = 0.02
# Photos with more pixels are shaded once per pixel and then look a little soft, as phones' do.
MAX_SUPERSAMPLED_PX = 4_000_000
SINGLE_SAMPLE_BLUR_PX = 0.8


class Photo(NamedTuple):
    """An RGB photo, its labels and how to store it."""

    image: UInt8[np.ndarray, "h w 3"]
    # How much of each pixel hands, arms, sleeves and occluders cover; 255 is all of it.
    coverage: UInt8[np.ndarray, "h w"]
    intrinsics: Float[np.ndarray, "3 3"]
    hands: tuple[PlacedHand, ...]
    jpeg_quality: int


class Layers(NamedTuple):
    """What is nearest at each sample of the photo; face -1 is the background."""

    depth_m: Float[np.ndarray, "hs ws"]
    face: Int[np.ndarray, "hs ws"]
    radiance: Float[np.ndarray, "hs ws 3"]


def sample_placements(
    rng: np.random.Generator,
    count: int,
    size_px: tuple[int, int],
    size_01: tuple[float, float] = SIZE_01,
) -> tuple[Placement, ...]:
    """Random places, sizes and sides of the body; the hands' boxes keep apart.

    Args:
        size_px: width and height of the photo.
        size_01: smallest and largest hand, as a fraction of the photo's longer side.

    Raises:
        UserError: if so many hands of that size do not fit.
    """
    low, high = np.array(size_01) * max(size_px)
    high = max(low, min(high, 0.85 * min(size_px), max(size_px) / np.sqrt(max(count, 1))))
    limits = np.array(size_px)
    for _ in range(LAYOUT_TRIES):
        sizes = np.exp(rng.uniform(np.log(low), np.log(high), count))
        border = sizes[:, None] / 2 + MARGIN_01 * max(size_px)
        if (2 * border > limits).any():
            continue
        centres = border + rng.random((count, 2)) * (limits - 2 * border)
        apart = [
            np.abs(centres[a] - centres[b]).max() - (sizes[a] + sizes[b]) / 2
            for a, b in itertools.combinations(range(count), 2)
        ]
        if min(apart, default=0.0) >= 0:
            sides = rng.permutation([SIDES[i % 2] for i in range(count)])
            return tuple(
                Placement(str(side), (float(x), float(y)), float(size))
                for side, (x, y), size in zip(sides, centres, sizes, strict=True)
            )
    raise UserError(
        f"{count} hands of at least {size_01[0]:.0%} of the longer side do not fit a photo of "
        f"{size_px[0]} x {size_px[1]} px side by side: ask for fewer or smaller hands"
    )


def sample_photo_intrinsics(
    rng: np.random.Generator, placements: Sequence[Placement], size_px: tuple[int, int]
) -> Float[np.ndarray, "3 3"]:
    """K with square pixels and its principal point at the photo's centre."""
    focal_px = rng.uniform(*FOCAL_PER_SIDE) * max(size_px)
    largest_px = max((placement.size_px for placement in placements), default=0.0)
    focal_px = max(focal_px, largest_px * NEAREST_HAND_M / HAND_LENGTH_M)
    return np.array([[focal_px, 0, size_px[0] / 2], [0, focal_px, size_px[1] / 2], [0, 0, 1]])


def _depth_maps(hand: PlacedHand, size_px: tuple[int, int]):
    """Coarse depth of the hand alone, and of everything that belongs to it."""
    side_px = max(size_px)
    hand_faces = hand.surface.faces[: hand.surface.n_hand_faces]
    maps = [
        depth_map(points_m, faces, hand.scene.intrinsics, side_px, CHECK_SIDE / side_px)
        for points_m, faces in [
            (hand.scene.body_m, hand_faces),
            *scene_meshes(hand.scene, hand.surface),
        ]
    ]
    return maps[0], np.minimum.reduce(maps[1:])


def _try_arrangement(
    rng, assets, placements, intrinsics, size_px, recipe
) -> tuple[PlacedHand, ...] | None:
    """Adds hand by hand; None where no random one fits, as another's arm may cross its place."""
    placed: list[tuple[PlacedHand, tuple]] = []
    for placement in placements:
        for _ in range(HAND_TRIES):
            hand = try_placement(rng, assets, recipe, placement, intrinsics, size_px)
            if hand is None:
                continue
            own, whole = _depth_maps(hand, size_px)
            if all(
                visible_fraction(own, other_whole) >= MIN_VISIBLE
                and visible_fraction(other_own, whole) >= MIN_VISIBLE
                for _, (other_own, other_whole) in placed
            ):
                placed.append((hand, (own, whole)))
                break
        else:
            return None
    return tuple(hand for hand, _ in placed)


def place_hands(
    rng: np.random.Generator,
    assets: RenderAssets,
    placements: Sequence[Placement],
    intrinsics: Float[np.ndarray, "3 3"],
    size_px: tuple[int, int],
    recipe: Recipe = FULL,
) -> tuple[PlacedHand, ...]:
    """Random hands at the given places, each with an arm that leaves the photo.

    Raises:
        UserError: for a place outside the photo, or if hands or arms always hide each other.
    """
    for placement in placements:
        check_placement(placement, size_px)
    for _ in range(ARRANGEMENT_TRIES):
        hands = _try_arrangement(rng, assets, placements, intrinsics, size_px, recipe)
        if hands is not None:
            return hands
    sizes = ", ".join(f"{placement.size_px:.0f}" for placement in placements)
    raise UserError(
        f"none of {ARRANGEMENT_TRIES} random arrangements of hands of {sizes} px fits a photo of "
        f"{size_px[0]} x {size_px[1]} px without one hiding another: move them apart and away "
        "from the border, or ask for fewer or smaller hands"
    )


def _window(hand: PlacedHand, size_px: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the photo around everything that belongs to the hand."""
    points_m = np.concatenate([points for points, _ in scene_meshes(hand.scene, hand.surface)])
    points_m = points_m[points_m[:, 2] > NEAR_M].astype(np.float64) @ hand.scene.intrinsics.T
    points_px = points_m[:, :2] / points_m[:, 2:]
    low = np.clip(np.floor(points_px.min(0)), 0, size_px).astype(int).tolist()
    high = np.clip(np.ceil(points_px.max(0)) + 1, 0, size_px).astype(int).tolist()
    return slice(low[1], high[1]), slice(low[0], high[0])


def _add_hand(
    rng: np.random.Generator, layers: Layers, hand: PlacedHand, lights: Lights, samples_per_px: int
) -> Bool[np.ndarray, "h w"]:
    """Renders one hand into the layers where nothing is nearer; returns the pixels it covers."""
    height, width = (length // samples_per_px for length in layers.face.shape)
    rows, columns = _window(hand, (width, height))
    intrinsics = hand.scene.intrinsics.copy()
    intrinsics[:2, 2] -= columns.start, rows.start
    scene = hand.scene._replace(intrinsics=intrinsics)
    window_px = columns.stop - columns.start, rows.stop - rows.start
    raster = rasterise_scene(scene, hand.surface, window_px, samples_per_px)
    shadow = render_shadow_map(
        raster.points_m, raster.faces, scene.body_m, lights.directions[0], PHOTO_SHADOW_SIDE
    )
    radiance = shade_scene(rng, scene, hand.surface, raster, sample_skin(rng), lights, shadow)
    rows_s, columns_s = (
        slice(axis.start * samples_per_px, axis.stop * samples_per_px) for axis in (rows, columns)
    )
    part = Layers(*(layer[rows_s, columns_s] for layer in layers))
    fragments = raster.fragments
    nearer = fragments.depth_m < part.depth_m
    np.copyto(part.depth_m, fragments.depth_m, where=nearer)
    np.copyto(part.face, fragments.face, where=nearer)
    np.copyto(part.radiance, radiance, where=nearer[..., None])
    covered = np.zeros((height, width), bool)
    covered[rows, columns] = fragments.face[::samples_per_px, ::samples_per_px] >= 0
    return covered


def _photo_background(rng, intrinsics, size_px: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    width, height = size_px
    side = max(size_px)
    blur_scale = intrinsics[0, 0] / side / FREIHAND_FOCAL_PER_SIDE
    square = sample_background(rng, side, blur_scale)
    top, left = (side - height) // 2, (side - width) // 2
    return np.ascontiguousarray(square[top : top + height, left : left + width])


def render_photo(
    rng: np.random.Generator,
    hands: Sequence[PlacedHand],
    intrinsics: Float[np.ndarray, "3 3"],
    size_px: tuple[int, int],
) -> Photo:
    """The hands with random skin, lights, background and camera; also without any hand."""
    width, height = size_px
    spp = SAMPLES_PER_PX if width * height <= MAX_SUPERSAMPLED_PX else 1
    shape = height * spp, width * spp
    layers = Layers(
        np.full(shape, FAR_M, np.float32),
        np.full(shape, -1, np.int32),
        np.zeros((*shape, 3), np.float32),
    )
    lights, response = sample_lights(rng), sample_camera_response(rng)
    if spp == 1:
        response = response._replace(blur_px=max(response.blur_px, SINGLE_SAMPLE_BLUR_PX))
    background = _photo_background(rng, intrinsics, size_px)
    near_wall = rng.random() < NEAR_WALL_PROBABILITY
    for hand in hands:
        covered = _add_hand(rng, layers, hand, lights, spp)
        if near_wall:
            scale = hand.placement.size_px / BOX_PX
            background = drop_shadow(rng, background, covered, lights.directions[0], scale)
    image = apply_camera_response(layers.radiance, layers.face, background, response, rng)
    coverage = pixel_coverage(layers.face >= 0, spp)
    return Photo(image, coverage, intrinsics, tuple(hands), response.jpeg_quality)


def sample_photo(
    rng: np.random.Generator,
    assets: RenderAssets,
    placements: Sequence[Placement],
    size_px: tuple[int, int],
    recipe: Recipe = FULL,
) -> Photo:
    """A random photo of `size_px` (width, height) with a hand at each of the given places.

    Raises:
        UserError: as `place_hands`.
    """
    intrinsics = sample_photo_intrinsics(rng, placements, size_px)
    hands = place_hands(rng, assets, placements, intrinsics, size_px, recipe)
    return render_photo(rng, hands, intrinsics, size_px)
