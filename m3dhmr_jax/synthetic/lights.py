"""Lights: one to three directional lights, ambient light from above and below, and a shadow map.

Axes: l lights, n points, f faces, v hand vertices, s side of the shadow map. Directions are in the
camera frame (y down) and point towards the light.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.math3d import unit
from m3dhmr_jax.visualize.raster import FAR_M, fill_depth

HARD_LIGHT_PROBABILITY = 0.35
WHITE_BALANCE = 0.6  # What a camera leaves of the light's colour.
SHADOW_SIDE = 192  # Samples of the shadow map per side.


class Lights(NamedTuple):
    """All light of a scene; colours are linear RGB."""

    directions: Float[np.ndarray, "l 3"]
    colours: Float[np.ndarray, "l 3"]
    from_above: Float[np.ndarray, "3"]
    from_below: Float[np.ndarray, "3"]
    # Radius of a shadow's soft edge, in samples of the shadow map.
    shadow_blur: float


class Shadow(NamedTuple):
    """Shadow map of the key light; rows of `axes` are its right, down and forward directions."""

    depth_m: Float[np.ndarray, "s s"]
    axes: Float[np.ndarray, "3 3"]
    origin_m: Float[np.ndarray, "2"]
    samples_per_m: float


def sample_lights(rng: np.random.Generator) -> Lights:
    """Random lights, mostly above and on the camera's side, of different warmth."""
    count = rng.integers(1, 4)
    directions = unit(rng.normal(size=(count, 3)) + np.array([0, -0.7, -0.9]))
    warmth = rng.normal(0, 0.12, (count, 1))
    strength = np.array([1.0, 0.4, 0.28])[:count, None] * rng.uniform(0.6, 1.15, (count, 1))
    colours = strength * (1 + warmth * np.array([[1.0, 0.1, -1.0]]))
    ambient, cold = rng.uniform(0.2, 0.6), rng.normal(0, 0.07)
    above = ambient * np.array([1 - cold, 1, 1 + cold])
    below = above * rng.uniform(0.35, 0.9) * np.array([1.07, 1, 0.93])
    arrays = (array.astype(np.float32) for array in (directions, colours, above, below))
    return Lights(*arrays, shadow_blur=rng.uniform(0.8, 3.5))


def sample_lifelike_lights(rng: np.random.Generator) -> Lights:
    """As `sample_lights`, white-balanced; often the sun or a lamp with hard shadows."""
    lights = sample_lights(rng)
    colours = [lights.colours, lights.from_above, lights.from_below]
    grey = [each.mean(-1, keepdims=True) for each in colours]
    colours = [g + WHITE_BALANCE * (each - g) for g, each in zip(grey, colours, strict=True)]
    if rng.random() < HARD_LIGHT_PROBABILITY:
        strength = np.float32(rng.uniform(0.35, 0.8))
        colours = [rng.uniform(1.2, 1.8) * colours[0][:1], *(strength * c for c in colours[1:])]
        lights = lights._replace(
            directions=lights.directions[:1], shadow_blur=rng.uniform(0.3, 0.9)
        )
    colours, above, below = (np.asarray(each, np.float32) for each in colours)
    return lights._replace(colours=colours, from_above=above, from_below=below)


def render_shadow_map(
    points_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    around_m: Float[np.ndarray, "v 3"],
    light_direction: Float[np.ndarray, "3"],
    side: int = SHADOW_SIDE,
) -> Shadow:
    """Shadow map of the first light; it covers the region around `around_m` only."""
    forward = -light_direction
    helper = np.array([0.0, 1.0, 0.3]) if abs(forward[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = unit(np.cross(helper, forward))
    axes = np.stack([right, np.cross(forward, right), forward]).astype(np.float32)
    points_light, around_light = points_m @ axes.T, around_m @ axes.T
    origin = around_light[:, :2].min(0) - 0.01
    samples_per_m = side / float((around_light[:, :2].max(0) + 0.01 - origin).max())
    depth = np.full((side, side), FAR_M, np.float32)
    uv = ((points_light[:, :2] - origin) * np.float32(samples_per_m)).astype(np.float32)
    fill_depth(uv, np.ascontiguousarray(points_light[:, 2], np.float32), faces, depth)
    return Shadow(depth, axes, origin.astype(np.float32), samples_per_m)
