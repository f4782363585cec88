"""From a scene to an image, the hand's mask and the coverage of everything in front.

Axes: h w pixels, hs ws samples, m vertices of all meshes together, f their faces.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from m3dhmr_jax.synthetic import shading
from m3dhmr_jax.synthetic.arm import smooth_step
from m3dhmr_jax.synthetic.backgrounds import drop_shadow, muted_colour, sample_background
from m3dhmr_jax.synthetic.imaging import (
    apply_camera_response,
    pixel_coverage,
    sample_camera_response,
    sample_lifelike_camera_response,
)
from m3dhmr_jax.synthetic.lights import (
    Lights,
    Shadow,
    render_shadow_map,
    sample_lifelike_lights,
    sample_lights,
)
from m3dhmr_jax.synthetic.noise import fractal, noise_tile
from m3dhmr_jax.synthetic.recipe import FULL, SIDE_PX, Recipe, happens
from m3dhmr_jax.synthetic.scene import RenderAssets, Scene
from m3dhmr_jax.synthetic.skin import Skin, sample_skin, skin_albedo
from m3dhmr_jax.synthetic.surface import Surface
from m3dhmr_jax.visualize.raster import Fragments, rasterise, vertex_normals

SAMPLES_PER_PX = 2
PORES_PER_M = 1100.0
MOTTLE_PER_M = 75.0
# Probability that the background is close enough to receive the hand's shadow.
NEAR_WALL_PROBABILITY = 0.45


class RasterisedScene(NamedTuple):
    """A scene's meshes as one mesh, and what is visible of it at each sample of the image."""

    points_m: Float[np.ndarray, "m 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "m 3"]
    fragments: Fragments
    samples_per_px: int


def scene_meshes(
    scene: Scene, surface: Surface
) -> list[tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "f 3"]]]:
    """Points and faces of hand and arm, of the sleeve if any, and of each occluder."""
    meshes = [(scene.body_m, surface.faces)]
    if scene.sleeve is not None:
        meshes.append(scene.sleeve)
    return meshes + [(occluder.verts_m, occluder.faces) for occluder in scene.occluders]


def rasterise_scene(
    scene: Scene,
    surface: Surface,
    size_px: tuple[int, int] = (SIDE_PX, SIDE_PX),
    samples_per_px: int = SAMPLES_PER_PX,
) -> RasterisedScene:
    """Rasterises all meshes of a scene; the hand's faces come first.

    `size_px`: width and height of the image.
    """
    meshes = scene_meshes(scene, surface)
    starts = np.cumsum([0] + [len(points) for points, _ in meshes])
    points = np.concatenate([points for points, _ in meshes])
    shifted = [faces + start for (_, faces), start in zip(meshes, starts[:-1], strict=True)]
    faces = np.concatenate(shifted).astype(np.int32)
    normals = vertex_normals(points, faces)
    fragments = rasterise(points, faces, scene.intrinsics, *size_px, samples_per_px)
    return RasterisedScene(points, faces, normals, fragments, samples_per_px)


def _material(normals, noise_position, albedo, gloss: float, bump: float, grain: float):
    rows = np.zeros((len(normals), shading.N_ATTRIBUTES), np.float32)
    rows[:, shading.NORMAL : shading.NORMAL + 3] = normals
    rows[:, shading.NOISE_POSITION : shading.NOISE_POSITION + 3] = noise_position
    rows[:, shading.ALBEDO : shading.ALBEDO + 3] = albedo
    rows[:, shading.GLOSS] = gloss
    rows[:, shading.BUMP] = bump
    rows[:, shading.GRAIN] = grain
    return rows


def skin_materials(
    skin: Skin, surface: Surface, normals: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 16"]:
    """Material attributes of hand and arm."""
    offset = skin.noise_offset.astype(np.float32)
    mottle = fractal(noise_tile(), surface.rest_m * np.float32(MOTTLE_PER_M) + offset)
    albedo = skin_albedo(skin, surface.masks, mottle)
    noise_position = surface.rest_m * np.float32(PORES_PER_M) + offset
    rows = _material(normals, noise_position, albedo, skin.gloss, skin.bump * 0.25, 0.045)
    masks = surface.masks
    palm = smooth_step(0.6, 1.0, masks.palmar)
    rows[:, shading.NAIL] = masks.nail
    rows[:, shading.SUBSURFACE] = 0.35
    rows[:, shading.VEIN] = skin.veins * (1 - masks.palmar) * (1 - masks.knuckle)
    rows[:, shading.PALM_LINE] = skin.palm_lines * palm * (1 - masks.tip)
    return rows


def sample_materials(
    rng: np.random.Generator, skin: Skin, scene: Scene, surface: Surface, raster: RasterisedScene
) -> Float[np.ndarray, "m 16"]:
    """Material attributes of all meshes: skin, a sleeve's cloth, and occluders."""
    n_body = len(scene.body_m)
    rows = [skin_materials(skin, surface, raster.normals[:n_body])]
    start = n_body
    if scene.sleeve is not None:
        points = scene.sleeve[0]
        normals = raster.normals[start : start + len(points)]
        cloth = np.tile(muted_colour(rng, 0.08, 0.9), (len(points), 1))
        rows.append(_material(normals, points * np.float32(700), cloth, 0.02, 0.16, 0.12))
        start += len(points)
    for occluder in scene.occluders:
        normals = raster.normals[start : start + len(occluder.verts_m)]
        noise_position = occluder.rest_m * np.float32(400)
        rows.append(_material(normals, noise_position, occluder.albedo, occluder.gloss, 0.03, 0.05))
        start += len(occluder.verts_m)
    return np.concatenate(rows)


def shade_scene(
    rng: np.random.Generator,
    scene: Scene,
    surface: Surface,
    raster: RasterisedScene,
    skin: Skin,
    lights: Lights,
    shadow: Shadow,
) -> Float[np.ndarray, "hs ws 3"]:
    """Linear radiance of the scene's samples, with random cloth and ambient occlusion."""
    materials = sample_materials(rng, skin, scene, surface, raster)
    return shading.shade(
        raster.fragments, raster.samples_per_px, scene.intrinsics, materials, raster.faces,
        skin.nail, skin.nail_gloss, lights, shadow, ao_strength=rng.uniform(1.0, 1.8),
    )  # fmt: skip


def render_image(
    rng: np.random.Generator,
    scene: Scene,
    assets: RenderAssets,
    raster: RasterisedScene,
    recipe: Recipe = FULL,
) -> tuple[UInt8[np.ndarray, "h w 3"], int]:
    """The scene with random skin, lights, background and camera; and its JPEG quality."""
    skin = sample_skin(rng, recipe.is_lifelike)
    if recipe.is_lifelike:
        lights, response = sample_lifelike_lights(rng), sample_lifelike_camera_response(rng)
    else:
        lights, response = sample_lights(rng), sample_camera_response(rng)
    key_light = lights.directions[0]
    shadow = render_shadow_map(raster.points_m, raster.faces, scene.verts_m, key_light)
    samples = shade_scene(rng, scene, assets.surface, raster, skin, lights, shadow)
    face = raster.fragments.face
    is_cluttered = happens(rng, recipe.clutter_probability)
    background = sample_background(rng, SIDE_PX, is_cluttered=is_cluttered)
    if rng.random() < NEAR_WALL_PROBABILITY:
        covered = face[::SAMPLES_PER_PX, ::SAMPLES_PER_PX] >= 0
        background = drop_shadow(rng, background, covered, key_light)
    image = apply_camera_response(samples, face, background, response, rng)
    return image, response.jpeg_quality


def visible_hand_mask(raster: RasterisedScene, surface: Surface) -> UInt8[np.ndarray, "h w"]:
    """255 where the hand itself is visible, not its arm."""
    face = raster.fragments.face
    coverage = pixel_coverage((face >= 0) & (face < surface.n_hand_faces), raster.samples_per_px)
    return np.where(coverage > 127, 255, 0).astype(np.uint8)


def visible_coverage(raster: RasterisedScene) -> UInt8[np.ndarray, "h w"]:
    """How much of each pixel hand, arm, sleeve and occluders cover; 255 is all of it.

    With it, an image can be put over any other background:
    `image * coverage / 255 + other * (1 - coverage / 255)`.
    """
    return pixel_coverage(raster.fragments.face >= 0, raster.samples_per_px)
