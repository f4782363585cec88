"""What people wear on their hands: rings, watches and bracelets, as meshes that move with the hand.

Axes: v hand vertices, k points around a finger or wrist, c corners around the band's section,
m vertices, f faces.
"""

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.math3d import unit
from m3dhmr_jax.synthetic.color import linear_rgb
from m3dhmr_jax.synthetic.kinematics import Posed
from m3dhmr_jax.synthetic.occluders import Occluder, grid_faces, superquadric

RING_CORNERS, SECTION_CORNERS = 24, 6
# Joints of the index, middle, ring and little finger's proximal phalanges, and how often each has
# a ring.
PHALANGES, RING_PROBABILITIES = (1, 4, 10, 7), (0.2, 0.2, 0.45, 0.15)
NEAR_RING_M = 0.006
METALS = linear_rgb(np.array([[0.83, 0.69, 0.35], [0.8, 0.8, 0.82], [0.85, 0.6, 0.5], [0.2] * 3]))


def band_faces(around: int) -> Int[np.ndarray, "f 3"]:
    """Triangles of a closed band of `around` sections, counter-clockwise from outside."""
    index = np.arange(around * SECTION_CORNERS).reshape(around, SECTION_CORNERS)
    here, there = index, np.roll(index, -1, 0)
    here_next, there_next = np.roll(here, -1, 1), np.roll(there, -1, 1)
    first = np.stack([here, there, here_next], -1).reshape(-1, 3)
    second = np.stack([there, there_next, here_next], -1).reshape(-1, 3)
    return np.concatenate([first, second]).astype(np.int32)


def band(
    loop_m: Float[np.ndarray, "k 3"],
    axis: Float[np.ndarray, "3"],
    width_m: float,
    thickness_m: float,
) -> Float[np.ndarray, "m 3"]:
    """A band of elliptical section on a closed loop of points, counter-clockwise about `axis`."""
    outward = loop_m - loop_m.mean(0)
    outward = unit(outward - (outward @ axis)[:, None] * axis)
    angle = np.linspace(0, 2 * np.pi, SECTION_CORNERS, endpoint=False)[None, :, None]
    section = thickness_m * np.cos(angle) * outward[:, None] + width_m * np.sin(angle) * axis
    return (loop_m[:, None] + section).reshape(-1, 3)


def _worn(rng, verts_m, faces, albedo) -> Occluder:
    verts_m = verts_m.astype(np.float32)
    albedo = np.tile(albedo, (len(verts_m), 1)).astype(np.float32)
    return Occluder(verts_m, faces, verts_m, albedo, rng.uniform(0.4, 0.95))


def sample_ring(rng: np.random.Generator, hand: HandModel, posed: Posed) -> Occluder:
    """A ring around a random finger's proximal phalanx."""
    joint = PHALANGES[rng.choice(4, p=RING_PROBABILITIES)]
    start_m, stop_m = posed.skeleton_m[joint], posed.skeleton_m[joint + 1]
    axis = unit((stop_m - start_m).astype(np.float64))
    own = posed.verts_m[hand.skin_weights.argmax(1) == joint].astype(np.float64)
    middle_m = start_m + rng.uniform(0.4, 0.6) * (stop_m - start_m)
    near = own[np.abs((own - middle_m) @ axis) < NEAR_RING_M] - middle_m
    if len(near) < 4:
        near = own - middle_m
    side = unit(np.cross(axis, posed.rotations[joint][:, 2].astype(np.float64)))
    plane = np.stack([side, np.cross(axis, side)], 1)
    flat = near @ plane
    low, high = flat.min(0), flat.max(0)
    angle = np.linspace(0, 2 * np.pi, RING_CORNERS, endpoint=False)[:, None]
    ellipse = (low + high) / 2 + (high - low) / 2 * np.concatenate(
        [np.cos(angle), np.sin(angle)], 1
    )
    loop_m = middle_m + ellipse @ plane.T
    verts_m = band(loop_m, axis, rng.uniform(0.0008, 0.004), rng.uniform(0.0008, 0.0016))
    return _worn(rng, verts_m, band_faces(RING_CORNERS), METALS[rng.integers(len(METALS))])


def sample_wristband(
    rng: np.random.Generator, loop_m: Float[np.ndarray, "k 3"], posed: Posed
) -> tuple[Occluder, ...]:
    """A watch or bracelet on the loop of arm vertices that is nearest to its place."""
    loop_m = loop_m.astype(np.float64)
    centre_m = loop_m.mean(0)
    first, second = loop_m - centre_m, np.roll(loop_m, -1, 0) - centre_m
    axis = unit(np.cross(first, second).sum(0))
    width_m, thickness_m = rng.uniform(0.002, 0.011), rng.uniform(0.0012, 0.003)
    dark = rng.uniform(0.02, 0.9) * np.ones(3) + rng.normal(0, 0.1, 3)
    colour = METALS[rng.integers(len(METALS))] if rng.random() < 0.5 else np.clip(dark, 0.01, 0.9)
    loop_m = centre_m + rng.uniform(1.01, 1.05) * (loop_m - centre_m)
    strap = _worn(rng, band(loop_m, axis, width_m, thickness_m), band_faces(len(loop_m)), colour)
    if rng.random() < 0.4:
        return (strap,)
    back = posed.rotations[0][:, 1].astype(np.float64)  # The palm faces the other way.
    back = unit(back - (back @ axis) * axis)
    across = np.cross(axis, back)
    radius_m = rng.uniform(0.013, 0.02)
    case_m = superquadric(
        np.array([radius_m, radius_m, 0.004]), 0.3, rng.choice([0.3, 1.0])
    ) @ np.stack([across, axis, back])
    top_m = centre_m + back * ((loop_m - centre_m) @ back).max()
    case = _worn(rng, case_m + top_m, grid_faces(), METALS[rng.integers(len(METALS))])
    face = np.clip(rng.uniform(0.01, 0.9) + rng.normal(0, 0.1, 3), 0.01, 0.9)
    height = (case.verts_m - top_m) @ back
    case.albedo[height > 0.0025] = face
    return strap, case
