"""Less jitter in video: the One-Euro filter (Casiez et al. 2012), on points.

A low-pass filter whose cutoff frequency grows with speed: it removes jitter at rest and adds little
lag in motion. Axes: k hands, n landmarks, v vertices, p points, d dimensions.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.predictor import PredictedHands

# The paper's parameters, in Hz and in Hz per metre per second. The root is noisier, as its depth is
# poorly observed.
MIN_CUTOFF_HZ, BETA = 1.5, 20.0
ROOT_MIN_CUTOFF_HZ, ROOT_BETA = 0.8, 8.0
SPEED_CUTOFF_HZ = 1.0


class FilterState(NamedTuple):
    """Filtered points and their velocity."""

    points: Float[np.ndarray, "*p d"]
    velocity: Float[np.ndarray, "*p d"]


def smoothing_factor(
    cutoff_hz: Float[np.ndarray, "*p"] | float, step_s: float
) -> np.ndarray | float:
    """Weight of the new value in a first-order low-pass filter: the paper's alpha."""
    r = 2 * math.pi * step_s * cutoff_hz
    return r / (1 + r)


def one_euro(
    last: FilterState | None,
    points: Float[np.ndarray, "*p d"],
    step_s: float,
    min_cutoff_hz: float,
    beta: float,
) -> FilterState:
    """The next state; the speed of a point is that of all its coordinates together."""
    if last is None:
        return FilterState(points, np.zeros_like(points))
    difference = (points - last.points) / step_s
    alpha = smoothing_factor(SPEED_CUTOFF_HZ, step_s)
    velocity = last.velocity + alpha * (difference - last.velocity)
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    alpha = smoothing_factor(min_cutoff_hz + beta * speed, step_s)
    return FilterState(last.points + alpha * (points - last.points), velocity)


class HandSmoother:
    """Filters the hands of one video; restarts if their number changes or time runs backwards."""

    def __init__(self, joint_regressor: Float[np.ndarray, "n v"]):
        self._regressor = joint_regressor
        self._last: dict[str, FilterState] = {}
        self._time_s = 0.0

    def reset(self) -> None:
        """Forgets all frames so far."""
        self._last = {}

    def __call__(self, hands: PredictedHands, time_s: float) -> PredictedHands:
        """The filtered hands; joints are regressed from the filtered mesh."""
        step_s = time_s - self._time_s
        if self._last and (step_s <= 0 or len(self._last["root"].points) != len(hands.root_m)):
            self.reset()
        self._time_s = time_s
        root_m = hands.root_m[:, None]
        focal_px = hands.intrinsics[0, 0]
        m_per_px = float(np.mean(root_m[..., 2])) / focal_px if len(root_m) else 1.0
        inputs = {
            "root": (root_m, ROOT_MIN_CUTOFF_HZ, ROOT_BETA),
            "shape": (hands.verts_m - root_m, MIN_CUTOFF_HZ, BETA),
            "landmarks": (hands.landmarks_px, MIN_CUTOFF_HZ, BETA * m_per_px),
        }
        self._last = {
            name: one_euro(self._last.get(name), points, step_s, min_cutoff_hz, beta)
            for name, (points, min_cutoff_hz, beta) in inputs.items()
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
