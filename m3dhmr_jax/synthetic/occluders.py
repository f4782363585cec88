"""Occluders that a hand holds or that are in front of it: balls, boxes, slabs, cans, pens, fruit.

Axes: m vertices, f faces, n = 21 joints. All are superquadrics on a common grid.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.math3d import random_rotation, unit
from m3dhmr_jax.synthetic.color import linear_rgb

ROWS, COLUMNS = 26, 32
# Half sizes in metres (x, y, z ranges) and roundness along and around z.
KINDS = {
    "ball": (((0.018, 0.04),) * 3, (1.0, 1.0)),
    "box": (((0.02, 0.045), (0.012, 0.035), (0.03, 0.07)), (0.16, 0.16)),
    "slab": (((0.03, 0.042), (0.0035, 0.007), (0.055, 0.08)), (0.2, 0.2)),
    "can": (((0.02, 0.035),) * 2 + ((0.045, 0.09),), (0.14, 1.0)),
    "pen": (((0.0035, 0.007),) * 2 + ((0.06, 0.09),), (0.3, 1.0)),
    "fruit": (((0.025, 0.04),) * 2 + ((0.025, 0.05),), (0.9, 1.0)),
}
FINGER_RADIUS_M = 0.009
BOTTLE_RADIUS_M, BOTTLE_HALF_LENGTH_M = (0.012, 0.04), (0.05, 0.11)


class Occluder(NamedTuple):
    """One occluder and its material; `rest_m` are its vertices before placement, for texture."""

    verts_m: Float[np.ndarray, "m 3"]
    faces: Int[np.ndarray, "f 3"]
    rest_m: Float[np.ndarray, "m 3"]
    albedo: Float[np.ndarray, "m 3"]
    gloss: float


def _power(x, exponent: float):
    return np.sign(x) * np.abs(x) ** exponent


def grid_faces() -> Int[np.ndarray, "f 3"]:
    """Triangles of the pole-to-pole grid, counter-clockwise from outside."""
    index = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    below, above = index[:-1], index[1:]
    below_next, above_next = np.roll(below, -1, 1), np.roll(above, -1, 1)
    first = np.stack([below, below_next, above], -1).reshape(-1, 3)
    second = np.stack([below_next, above_next, above], -1).reshape(-1, 3)
    return np.concatenate([first, second]).astype(np.int32)


def superquadric(
    half_m: Float[np.ndarray, "3"], along: float, around: float
) -> Float[np.ndarray, "m 3"]:
    """Surface points; roundness 1 is an ellipsoid, towards 0 edges become sharp."""
    steps = np.linspace(-1, 1, ROWS)
    latitude = (np.pi / 2 * _power(steps, 0.8))[:, None]
    longitude = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False)[None] + np.pi / 4
    ring = _power(np.cos(latitude), along)
    x = ring * _power(np.cos(longitude), around)
    y = ring * _power(np.sin(longitude), around)
    z = _power(np.sin(latitude), along) * np.ones_like(longitude)
    return np.stack([x, y, z], -1).reshape(-1, 3) * half_m


def paint(
    rng: np.random.Generator, rest_m: Float[np.ndarray, "m 3"], kind: str
) -> Float[np.ndarray, "m 3"]:
    """Albedo: a muted base colour, sometimes with a label or cap of another colour."""
    base, other = (linear_rgb(_muted(rng)) for _ in range(2))
    height = rest_m[:, 2] / np.abs(rest_m[:, 2]).max()
    albedo = np.tile(base, (len(rest_m), 1))
    if kind in ("can", "box", "pen") and rng.random() < 0.7:
        low = rng.uniform(-0.9, 0.3)
        albedo[(height > low) & (height < low + rng.uniform(0.4, 1.2))] = other
    if kind == "fruit":
        warm = linear_rgb(np.array([rng.uniform(0.6, 0.95), rng.uniform(0.25, 0.8), 0.15]))
        blend = np.clip(0.5 + 0.5 * height + rng.normal(0, 0.3), 0, 1)[:, None]
        albedo = warm * (1 - blend) + warm * np.array([0.8, 1.15, 0.9]) * blend
    return np.clip(albedo, 0.01, 0.9)


def _muted(rng) -> Float[np.ndarray, "3"]:
    grey = rng.uniform(0.08, 0.92)
    return np.clip(grey + rng.normal(0, 0.45 * rng.beta(1.2, 2.5), 3), 0.03, 0.97)


def sample_occluder(
    rng: np.random.Generator,
    joints_m: Float[np.ndarray, "n 3"],
    palm_normal: Float[np.ndarray, "3"],
) -> Occluder:
    """A random occluder, held against the palm or between the camera and a joint."""
    kind = str(rng.choice(list(KINDS)))
    ranges, roundness = KINDS[kind]
    half = np.array([rng.uniform(*limits) for limits in ranges])
    if kind in ("ball", "can", "pen"):
        half[1] = half[0]
    if kind == "ball":
        half[2] = half[0]
    rest = superquadric(half, *roundness)
    rotation = random_rotation(rng)
    if rng.random() < 0.6:
        palm = joints_m[[0, 5, 9, 13, 17]].mean(0)
        across = unit(joints_m[5] - joints_m[17])
        if rng.random() < 0.8:  # A hand closes around objects that lie across it.
            side = np.cross(palm_normal, across)
            rotation = np.stack([side, palm_normal, across], -1)
        extent = np.abs(rotation.T @ palm_normal) @ half * 0.9
        fingers = joints_m[9] - joints_m[0]
        centre = palm + palm_normal * (extent + rng.uniform(0.012, 0.02)) + 0.3 * fingers
        centre = centre + rng.normal(0, 0.006, 3)
    else:
        target = joints_m[rng.integers(len(joints_m))]
        nearer = rng.uniform(0.05, 0.16) / np.linalg.norm(target)
        centre = target * (1 - nearer) + rng.normal(0, 0.02, 3)
    return _painted(rng, kind, rest, rest @ rotation.T + centre)


def _painted(rng, kind: str, rest_m, verts_m) -> Occluder:
    albedo = paint(rng, rest_m, kind).astype(np.float32)
    gloss = rng.uniform(0.05, 0.7)
    rest_m, verts_m = rest_m.astype(np.float32), verts_m.astype(np.float32)
    return Occluder(verts_m, grid_faces(), rest_m, albedo, gloss)


def _fitted_circle(points: Float[np.ndarray, "k 2"]) -> tuple[Float[np.ndarray, "2"], float]:
    """Centre and radius of the circle nearest to some points in the plane (Kasa 1976)."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    x, y, offset = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return np.array([x, y]), float(np.sqrt(max(offset + x * x + y * y, 0)))


def sample_bottle(
    rng: np.random.Generator,
    joints_m: Float[np.ndarray, "n 3"],
    palm_normal: Float[np.ndarray, "3"],
) -> tuple[Occluder, ...]:
    """A bottle, can, glass or handle in the fist: as wide as the fingers leave room for."""
    across = unit(joints_m[5] - joints_m[17])
    first = unit(np.cross(palm_normal, across))
    plane = np.stack([first, np.cross(across, first)], 1)
    around = joints_m[[5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16]]
    centre, radius_m = _fitted_circle((around - joints_m[9]) @ plane)
    radius_m = np.clip(radius_m - FINGER_RADIUS_M, *BOTTLE_RADIUS_M)
    rotation = np.stack([plane[:, 0], plane[:, 1], across], -1)
    middle_m = joints_m[[5, 9, 13]].mean(0)
    middle_m = joints_m[9] + plane @ centre + across * ((middle_m - joints_m[9]) @ across)
    half_m = rng.uniform(*BOTTLE_HALF_LENGTH_M)
    up = rng.choice([-1.0, 1.0])
    shift_m = up * rng.uniform(-0.2, 0.6) * half_m

    def part(radius_m, half_m, from_m, sharpness):
        rest_m = superquadric(np.array([radius_m, radius_m, half_m]), sharpness, 1.0)
        moved_m = rest_m + np.array([0, 0, from_m])
        return _painted(rng, "can", rest_m, moved_m @ rotation.T + middle_m)

    body = part(radius_m, half_m, shift_m, rng.uniform(0.1, 0.3))
    if rng.random() < 0.4:
        return (body,)
    neck_m = half_m * rng.uniform(0.25, 0.45)
    return body, part(0.4 * radius_m, neck_m, shift_m + up * (half_m + 0.7 * neck_m), 0.2)
