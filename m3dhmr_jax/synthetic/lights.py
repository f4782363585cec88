"""Light: one to three lamps, light from above and below, and the shadow of the brightest lamp.

Axes: l lamps, n points. Directions in the camera frame point towards the lamp; y points down.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.math3d import unit
from m3dhmr_jax.synthetic.raster import FAR_M, fill_depth

SHADOW_SIDE = 192


class Lights(NamedTuple):
    """All light of a scene; colours are linear RGB."""

    directions: Float[np.ndarray, "l 3"]
    colours: Float[np.ndarray, "l 3"]
    from_above: Float[np.ndarray, "3"]
    from_below: Float[np.ndarray, "3"]
    shadow_blur: float  # Radius of a shadow's edge, in samples of the shadow map.


class Shadow(NamedTuple):
    """Depth as the key lamp sees it; axes are its right, down and forward."""

    depth_m: Float[np.ndarray, "s s"]
    axes: Float[np.ndarray, "3 3"]
    origin_m: Float[np.ndarray, "2"]
    per_m: float


def sample_lights(rng: np.random.Generator) -> Lights:
    """Lamps mostly above and on the camera's side, each with its own warmth."""
    count = rng.integers(1, 4)
    directions = unit(rng.normal(size=(count, 3)) + np.array([0, -0.7, -0.9]))
    warmth = rng.normal(0, 0.12, (count, 1))
    strength = np.array([1.0, 0.4, 0.28])[:count, None] * rng.uniform(0.6, 1.15, (count, 1))
    colours = strength * (1 + warmth * np.array([[1.0, 0.1, -1.0]]))
    ambient, cold = rng.uniform(0.2, 0.6), rng.normal(0, 0.07)
    above = ambient * np.array([1 - cold, 1, 1 + cold])
    below = above * rng.uniform(0.35, 0.9) * np.array([1.07, 1, 0.93])
    parts = (part.astype(np.float32) for part in (directions, colours, above, below))
    return Lights(*parts, shadow_blur=rng.uniform(0.8, 3.5))


def cast_shadow(
    points_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    around_m: Float[np.ndarray, "v 3"],
    to_lamp: Float[np.ndarray, "3"],
) -> Shadow:
    """Depth map of the scene from the lamp; it covers the surroundings of the hand only."""
    forward = -to_lamp
    helper = np.array([0.0, 1.0, 0.3]) if abs(forward[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = unit(np.cross(helper, forward))
    axes = np.stack([right, np.cross(forward, right), forward]).astype(np.float32)
    seen, covered = points_m @ axes.T, around_m @ axes.T
    origin = covered[:, :2].min(0) - 0.01
    per_m = SHADOW_SIDE / float((covered[:, :2].max(0) + 0.01 - origin).max())
    depth = np.full((SHADOW_SIDE, SHADOW_SIDE), FAR_M, np.float32)
    uv = ((seen[:, :2] - origin) * np.float32(per_m)).astype(np.float32)
    fill_depth(uv, np.ascontiguousarray(seen[:, 2], np.float32), faces, depth)
    return Shadow(depth, axes, origin.astype(np.float32), per_m)
