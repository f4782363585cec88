"""The forearm: bends at wrist and elbow, grows thicker, may wear a sleeve.

Axes: r = rim of the wrist, a arm vertices, s rings, c corners around a sleeve, m vertices, f faces.
Coordinates are in the hand's own frame (fingers -x); the caller rotates them with the wrist.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.math3d import axis_rotation
from m3dhmr_jax.synthetic.surface import RING_DISTANCE_M

FOREARM_GROWTH = 1.5  # Girth at the thickest point relative to the wrist.
WRIST_BEND_M = (0.0, 0.06)
ELBOW_M = (0.235, 0.31)
SLEEVE_CORNERS = 28
SLEEVE_RINGS = 30


class Arm(NamedTuple):
    """A bent arm: positions and frames along its axis, and its girth there."""

    centres_m: Float[np.ndarray, "s 3"]
    frames: Float[np.ndarray, "s 3 3"]
    # Relative to the wrist's rim.
    girth: Float[np.ndarray, " s"]


def smooth_step(low: float, high: float, x):
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bend_arm(
    start_m: Float[np.ndarray, "3"],
    outward: float,
    flexion_rad: float,
    deviation_rad: float,
    elbow_rad: float,
    elbow_direction_rad: float,
    distance_m: Float[np.ndarray, " s"],
) -> Arm:
    """Lays the arm's axis from the wrist at `start_m`; `outward` is the sign of x away from it."""
    elbow_axis = np.array([0.0, np.cos(elbow_direction_rad), np.sin(elbow_direction_rad)])
    before_m = np.concatenate([[0.0], distance_m[:-1]])
    midway_m = 0.5 * (before_m + distance_m)
    wrist, elbow = smooth_step(*WRIST_BEND_M, midway_m), smooth_step(*ELBOW_M, midway_m)
    frames = (
        axis_rotation(np.array([0.0, 0.0, 1.0]), flexion_rad * wrist)
        @ axis_rotation(np.array([0.0, 1.0, 0.0]), deviation_rad * wrist)
        @ axis_rotation(elbow_axis, elbow_rad * elbow)
    )
    steps_m = frames[:, :, 0] * (outward * (distance_m - before_m))[:, None]
    growth = smooth_step(0.01, 0.17, distance_m)
    girth = 1 + (FOREARM_GROWTH - 1) * growth - 0.08 * smooth_step(0.17, 0.25, distance_m)
    girth = girth + 0.25 * smooth_step(0.28, 0.4, distance_m)
    return Arm(start_m + np.cumsum(steps_m, axis=0), frames, girth)


def arm_vertices(rim_m: Float[np.ndarray, "r 3"], arm: Arm) -> Float[np.ndarray, "a 3"]:
    """Vertices of the arm's rings, then the one that closes its end.

    The first rings gradually flatten the uneven rim, so that rings do not intersect.
    """
    offsets = rim_m - rim_m.mean(0)
    level = 1 - smooth_step(0.0, 0.05, RING_DISTANCE_M)
    rings = np.repeat(offsets[None], len(RING_DISTANCE_M), 0)
    rings[..., 0] *= level[:, None]
    round_m = np.linalg.norm(offsets[:, 1:], axis=1).mean()
    directions = offsets[:, 1:] / np.linalg.norm(offsets[:, 1:], axis=1, keepdims=True)
    roundness = 0.6 * smooth_step(0.02, 0.2, RING_DISTANCE_M)[:, None, None]
    rings[..., 1:] += roundness * (directions * round_m - rings[..., 1:])
    rings[..., 1:] *= arm.girth[:, None, None]
    placed = np.einsum("sab,srb->sra", arm.frames, rings) + arm.centres_m[:, None]
    end = arm.centres_m[-1] + 0.3 * (arm.centres_m[-1] - arm.centres_m[-2])
    return np.concatenate([placed.reshape(-1, 3), end[None]]).astype(np.float32)


def sleeve_mesh(
    rng: np.random.Generator, radius_m: float, arm: Arm, distance_m: Float[np.ndarray, " s"]
) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, "f 3"]]:
    """A loose, folded tube around the arm from `distance_m[0]` on; its cuff is turned inwards."""
    around = np.linspace(0, 2 * np.pi, SLEEVE_CORNERS, endpoint=False)[None]
    along = distance_m[:, None]
    phase = rng.uniform(0, 2 * np.pi, 6)
    folds = np.sin(rng.uniform(90, 160) * along + phase[0] + 2.2 * np.sin(around + phase[1]))
    folds = folds + 0.7 * np.sin(2 * around + phase[2] + 40 * along)
    folds = folds + 0.6 * np.sin(rng.uniform(150, 260) * along + 3 * np.sin(around + phase[3]))
    calm = smooth_step(distance_m[0] + 0.005, distance_m[0] + 0.05, along)
    radius = radius_m * arm.girth[:, None] * rng.uniform(1.0, 1.1) + 0.003
    radius = radius * (1 + 0.05 * smooth_step(distance_m[0] + 0.03, distance_m[0], along))
    radius = radius + rng.uniform(0.0006, 0.0022) * folds * calm
    radius[0] = radius_m * arm.girth[0] * 0.75
    ring = np.stack([np.zeros_like(radius), radius * np.cos(around), radius * np.sin(around)], -1)
    placed = np.einsum("sab,scb->sca", arm.frames, ring) + arm.centres_m[:, None]
    placed[0] = placed[1] + 0.75 * (placed[0] - placed[1])
    index = np.arange(placed.shape[0] * SLEEVE_CORNERS).reshape(placed.shape[:2])
    near, far = index[:-1], index[1:]
    near_next, far_next = np.roll(near, -1, 1), np.roll(far, -1, 1)
    faces = [np.stack([near, near_next, far], -1), np.stack([near_next, far_next, far], -1)]
    both = np.concatenate([face.reshape(-1, 3) for face in faces])
    return placed.reshape(-1, 3).astype(np.float32), both.astype(np.int32)
