"""Observations of posed hands, as a landmark network would give them.

Axes: b hands, n = 21 landmarks or joints.
"""

import jax
import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.fitting import Observation, landmark_std
from m3dhmr_jax.fitting.search import _rotation_to_ray
from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.capsules import fit_capsules
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.math3d import random_rotation
from m3dhmr_jax.synthetic.poses import sample_articulation, sample_shape
from m3dhmr_jax.synthetic.recipe import FULL

IMAGE_PX = 640, 480


def draw_joints_m(n, rng):
    """Joints of hands in the renderer's poses and shapes, in camera space."""
    hand, details = load_builtin(), load_details()
    capsules = fit_capsules(hand)
    shapes = [sample_shape(rng, 10, 1.0) for _ in range(n)]
    own = [sample_articulation(rng, hand, details, capsules, shape, FULL) for shape in shapes]
    own = np.stack(own)
    own[:, 0] = [random_rotation(rng) for _ in range(n)]
    posed = jax.vmap(lambda r, s: pose_hand(hand, r, s))(np.float32(own), np.float32(shapes))
    joints_m = np.asarray(posed.joints_m, np.float64)
    t_m = rng.uniform([-0.15, -0.1, 0.3], [0.15, 0.1, 0.9], (n, 3))
    return joints_m - joints_m[:, :1] + t_m[:, None]


def observe(joints_m, rng, noise=0.015, outliers=0, focal_px=554.0):
    """Landmarks with noise in fractions of the hand's box; some lie anywhere near the hand."""
    n, (width, height) = len(joints_m), IMAGE_PX
    intrinsics = np.array(
        [[focal_px, 0.3, (width - 1) / 2], [0, 1.01 * focal_px, (height - 1) / 2], [0, 0, 1]]
    )
    uv = np.einsum("ij,bnj->bni", intrinsics, joints_m)
    uv = uv[..., :2] / uv[..., 2:]
    rays = (uv - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]
    middle = jnp.asarray((rays.min(axis=1) + rays.max(axis=1)) / 2, jnp.float32)
    to_ray = np.stack([_rotation_to_ray(ray) for ray in middle])
    joints_rel = np.einsum("bji,bnj->bni", to_ray, joints_m - joints_m.mean(1, keepdims=True))
    joints_rel = joints_rel * rng.uniform(0.85, 1.15, (n, 1, 1)) + rng.normal(0, 6e-3, (n, 21, 3))
    box_px = np.ptp(uv, axis=1).max(axis=1)[:, None, None]
    uv += noise * box_px * rng.normal(size=uv.shape)
    for i in range(n):
        wrong = rng.permutation(21)[:outliers]
        uv[i, wrong] += box_px[i] * rng.uniform(-0.5, 0.5, (outliers, 2))
    disagreement = np.abs(rng.normal(0, noise, (n, 21)))
    columns = (
        *(uv, landmark_std(disagreement), joints_rel, np.ones(n), np.stack([intrinsics] * n)),
        *(np.zeros((n, 10)), np.ones((n, 10))),
    )
    return Observation(*(np.asarray(x, np.float32) for x in columns))


def join(*observations):
    return Observation(*map(np.concatenate, zip(*observations, strict=True)))
