"""Less jitter in video: the One-Euro filter (Casiez et al. 2012), on points.

A low-pass filter whose cutoff frequency grows with speed: it removes jitter at rest and adds little
lag in motion. Axes: k hands, n landmarks, v vertices, p points, d dimensions.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.types import ROOT

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
    """Filters the hands of one video, each by its `track`; restarts when time runs backwards."""

    def __init__(self, joint_regressor: Float[np.ndarray, "n v"]):
        self._regressor = joint_regressor
        self._last: dict[int, dict[str, FilterState]] = {}
        self._time_s = 0.0

    def __call__(self, hands: PredictedHands, time_s: float) -> PredictedHands:
        """The filtered hands; joints are regressed from the filtered mesh."""
        step_s, last = time_s - self._time_s, self._last
        if step_s <= 0:
            last = {}
        self._time_s, self._last = time_s, {}
        verts_m, landmarks_px = hands.verts_m.copy(), hands.landmarks_px.copy()
        for i, track in enumerate(hands.track.tolist()):
            root_m = hands.root_m[i : i + 1]
            m_per_px = float(root_m[0, 2]) / hands.intrinsics[0, 0]
            inputs = {
                "root": (root_m, ROOT_MIN_CUTOFF_HZ, ROOT_BETA),
                "shape": (hands.verts_m[i] - root_m, MIN_CUTOFF_HZ, BETA),
                "landmarks": (hands.landmarks_px[i], MIN_CUTOFF_HZ, BETA * m_per_px),
            }
            states = {
                name: one_euro(last.get(track, {}).get(name), points, step_s, min_cutoff_hz, beta)
                for name, (points, min_cutoff_hz, beta) in inputs.items()
            }
            self._last[track] = states
            verts_m[i] = states["shape"].points + states["root"].points
            landmarks_px[i] = states["landmarks"].points
        joints_m = np.einsum("nv,kvc->knc", self._regressor, verts_m).astype(np.float32)
        return hands._replace(
            verts_m=verts_m, joints_m=joints_m, root_m=joints_m[:, ROOT], landmarks_px=landmarks_px
        )
