"""From a scene to a photo and its mask.

Axes: h w pixels, m drawn vertices of all meshes together, f their faces.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from m3dhmr_jax.synthetic import shading
from m3dhmr_jax.synthetic.arm import smooth_step
from m3dhmr_jax.synthetic.backgrounds import drop_shadow, muted_colour, sample_background
from m3dhmr_jax.synthetic.imaging import develop, hand_mask, sample_look
from m3dhmr_jax.synthetic.lights import cast_shadow, sample_lights
from m3dhmr_jax.synthetic.noise import fractal, noise_tile
from m3dhmr_jax.synthetic.raster import Fragments, rasterise
from m3dhmr_jax.synthetic.recipe import SIDE_PX
from m3dhmr_jax.synthetic.scene import Kit, Scene
from m3dhmr_jax.synthetic.skin import Skin, sample_skin, skin_albedo
from m3dhmr_jax.synthetic.surface import Surface, vertex_normals

SAMPLES_PER_PX = 2
PORES_PER_M = 1100.0
MOTTLE_PER_M = 75.0
NEAR_WALL_PROBABILITY = 0.45  # That what is behind the hand is near enough for its shadow.


class Drawn(NamedTuple):
    """A scene's meshes in one list, and what each sample of the picture sees of them."""

    points_m: Float[np.ndarray, "m 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "m 3"]
    found: Fragments


def draw(scene: Scene, surface: Surface) -> Drawn:
    """Rasterises all meshes of a scene; the first faces are the hand's."""
    meshes = [(scene.body_m, surface.faces)]
    if scene.sleeve is not None:
        meshes.append(scene.sleeve)
    meshes += [(thing.verts_m, thing.faces) for thing in scene.things]
    starts = np.cumsum([0] + [len(points) for points, _ in meshes])
    points = np.concatenate([points for points, _ in meshes])
    faces = [part + start for (_, part), start in zip(meshes, starts[:-1], strict=True)]
    joined = np.concatenate(faces).astype(np.int32)
    normals = vertex_normals(points, joined)
    found = rasterise(points, joined, scene.intrinsics, SIDE_PX, SAMPLES_PER_PX)
    return Drawn(points, joined, normals, found)


def _rows(normals, place, albedo, gloss: float, bump: float, grain: float):
    rows = np.zeros((len(normals), shading.LOOKS), np.float32)
    rows[:, shading.NORMAL : shading.NORMAL + 3] = normals
    rows[:, shading.PLACE : shading.PLACE + 3] = place
    rows[:, shading.ALBEDO : shading.ALBEDO + 3] = albedo
    rows[:, shading.GLOSS] = gloss
    rows[:, shading.BUMP] = bump
    rows[:, shading.GRAIN] = grain
    return rows


def skin_looks(
    skin: Skin, surface: Surface, normals: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, "m 16"]:
    """Rows of looks for hand and arm."""
    offset = skin.noise_offset.astype(np.float32)
    mottle = fractal(noise_tile(), surface.rest_m * np.float32(MOTTLE_PER_M) + offset)
    albedo = skin_albedo(skin, surface.masks, mottle)
    place = surface.rest_m * np.float32(PORES_PER_M) + offset
    rows = _rows(normals, place, albedo, skin.gloss, skin.bump * 0.25, 0.045)
    masks = surface.masks
    rows[:, shading.NAIL] = masks.nail
    rows[:, shading.GLOW] = 0.35
    rows[:, shading.VEIN] = skin.veins * (1 - masks.palmar) * (1 - masks.knuckle)
    rows[:, shading.LINE] = skin.palm_lines * smooth_step(0.6, 1.0, masks.palmar) * (1 - masks.tip)
    return rows


def sample_looks(
    rng: np.random.Generator, skin: Skin, scene: Scene, surface: Surface, drawn: Drawn
) -> Float[np.ndarray, "m 16"]:
    """Rows of looks for everything drawn: skin, a sleeve's cloth, and things."""
    n_body = len(scene.body_m)
    rows = [skin_looks(skin, surface, drawn.normals[:n_body])]
    start = n_body
    if scene.sleeve is not None:
        points = scene.sleeve[0]
        normals = drawn.normals[start : start + len(points)]
        cloth = np.tile(muted_colour(rng, 0.08, 0.9), (len(points), 1))
        rows.append(_rows(normals, points * np.float32(700), cloth, 0.02, 0.16, 0.12))
        start += len(points)
    for thing in scene.things:
        normals = drawn.normals[start : start + len(thing.verts_m)]
        place = thing.rest_m * np.float32(400)
        rows.append(_rows(normals, place, thing.albedo, thing.gloss, 0.03, 0.05))
        start += len(thing.verts_m)
    return np.concatenate(rows)


def photograph(
    rng: np.random.Generator, scene: Scene, kit: Kit, drawn: Drawn
) -> tuple[UInt8[np.ndarray, "h w 3"], int]:
    """A photo of the scene under random skin, light, background and camera; its JPEG quality."""
    skin, lights, look = sample_skin(rng), sample_lights(rng), sample_look(rng)
    looks = sample_looks(rng, skin, scene, kit.surface, drawn)
    shadow = cast_shadow(drawn.points_m, drawn.faces, scene.verts_m, lights.directions[0])
    samples = shading.shade(
        drawn.found, SAMPLES_PER_PX, scene.intrinsics, looks, drawn.faces, skin.nail,
        skin.nail_gloss, lights, shadow, occlusion=rng.uniform(1.0, 1.8),
    )  # fmt: skip
    background = sample_background(rng, SIDE_PX)
    if rng.random() < NEAR_WALL_PROBABILITY:
        covered = drawn.found.face[::SAMPLES_PER_PX, ::SAMPLES_PER_PX] >= 0
        background = drop_shadow(rng, background, covered, lights.directions[0])
    return develop(samples, drawn.found.face, background, look, rng), look.jpeg_quality


def mask_of(drawn: Drawn, surface: Surface) -> UInt8[np.ndarray, "h w"]:
    """255 where the picture shows the hand itself, not its arm."""
    return hand_mask(drawn.found.face, surface.n_hand_faces, SIDE_PX)
