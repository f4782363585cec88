"""Steadier hands in video: the One-Euro filter (Casiez et al. 2012), on points.

A low-pass filter whose cutoff grows with speed: what rests does not tremble, what moves does not
lag. Axes: k hands, n landmarks, v vertices, p points, d dimensions.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.predictor import PredictedHands

# Cutoffs in Hz of what rests, and Hz per metre per second. The wrist's place has more noise, as
# depth is hard to see.
RESTING_HZ, HZ_PER_SPEED = 1.5, 20.0
ROOT_RESTING_HZ, ROOT_HZ_PER_SPEED = 0.8, 8.0
SPEED_HZ = 1.0  # Cutoff of the speed itself.


class Filtered(NamedTuple):
    """The filter's state: where points are thought to be, and how fast they move."""

    points: Float[np.ndarray, "*p d"]
    velocity: Float[np.ndarray, "*p d"]


def share_of_new(cutoff_hz: Float[np.ndarray, "*p"] | float, step_s: float) -> np.ndarray | float:
    """How much a new value counts in a first-order low-pass filter."""
    turn = 2 * math.pi * step_s * cutoff_hz
    return turn / (1 + turn)


def one_euro(
    last: Filtered | None,
    points: Float[np.ndarray, "*p d"],
    step_s: float,
    resting_hz: float,
    hz_per_speed: float,
) -> Filtered:
    """The next state; speed is that of a point, whatever the direction."""
    if last is None:
        return Filtered(points, np.zeros_like(points))
    moved = (points - last.points) / step_s
    velocity = last.velocity + share_of_new(SPEED_HZ, step_s) * (moved - last.velocity)
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    share = share_of_new(resting_hz + hz_per_speed * speed, step_s)
    return Filtered(last.points + share * (points - last.points), velocity)


class HandSmoother:
    """Filters the hands of one video; starts anew when their number changes or time goes back."""

    def __init__(self, joint_regressor: Float[np.ndarray, "n v"]):
        self._regressor = joint_regressor
        self._last: dict[str, Filtered] = {}
        self._time_s = 0.0

    def reset(self) -> None:
        """Forgets the past."""
        self._last = {}

    def __call__(self, hands: PredictedHands, time_s: float) -> PredictedHands:
        """The hands, steadier; joints and mesh belong together as before."""
        step_s = time_s - self._time_s
        if self._last and (step_s <= 0 or len(self._last["root"].points) != len(hands.root_m)):
            self.reset()
        self._time_s = time_s
        root_m = hands.root_m[:, None]
        focal_px = hands.intrinsics[0, 0]
        m_per_px = float(np.mean(root_m[..., 2])) / focal_px if len(root_m) else 1.0
        inputs = {
            "root": (root_m, ROOT_RESTING_HZ, ROOT_HZ_PER_SPEED),
            "shape": (hands.verts_m - root_m, RESTING_HZ, HZ_PER_SPEED),
            "landmarks": (hands.landmarks_px, RESTING_HZ, HZ_PER_SPEED * m_per_px),
        }
        self._last = {
            name: one_euro(self._last.get(name), points, step_s, resting_hz, hz_per_speed)
            for name, (points, resting_hz, hz_per_speed) in inputs.items()
        }
        root_m, shape_m, landmarks_px = (self._last[name].points for name in inputs)
        verts_m = (shape_m + root_m).astype(np.float32)
        joints_m = np.einsum("nv,kvc->knc", self._regressor, verts_m).astype(np.float32)
        return hands._replace(
            verts_m=verts_m,
            joints_m=joints_m,
            root_m=joints_m[:, 0],
            landmarks_px=landmarks_px.astype(np.float32),
        )
