"""Filling triangles: which face is seen at each sample, where on it, and how far away.

Sample (0, 0) of an `s` times finer picture lies at pixel (0.5 / s - 0.5): pixel centres are whole.
Faces are counter-clockwise from outside, which is clockwise on a screen whose y points down;
faces seen from behind are left out.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.synthetic.camera import project

NEAR_M = 0.08
FAR_M = np.float32(1e9)


class Fragments(NamedTuple):
    """What each sample sees; face -1 is the background."""

    depth_m: Float[np.ndarray, "h w"]
    face: Int[np.ndarray, "h w"]
    weights: Float[np.ndarray, "h w 2"]  # Of the face's first two corners, perspective-correct.


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _fill(uv, z, faces, depth, seen, weights):
    height, width = depth.shape
    one, half = np.float32(1), np.float32(0.5)
    for f in range(len(faces)):
        a, b, c = faces[f]
        if min(z[a], z[b], z[c]) < NEAR_M:
            continue
        ax, ay, bx, by, cx, cy = uv[a, 0], uv[a, 1], uv[b, 0], uv[b, 1], uv[c, 0], uv[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -1e-9:
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx) - half)))
        right = min(width - 1, int(np.floor(max(ax, bx, cx) - half)))
        top = max(0, int(np.ceil(min(ay, by, cy) - half)))
        bottom = min(height - 1, int(np.floor(max(ay, by, cy) - half)))
        scale = one / area
        near_a, near_b, near_c = one / z[a], one / z[b], one / z[c]
        step_a, step_b = (by - cy) * scale, (cy - ay) * scale
        for y in range(top, bottom + 1):
            py = y + half
            px = left + half
            wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * scale
            wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * scale
            for x in range(left, right + 1):
                wc = one - wa - wb
                if wa >= 0 and wb >= 0 and wc >= 0:
                    here = one / (wa * near_a + wb * near_b + wc * near_c)
                    if here < depth[y, x]:
                        depth[y, x] = here
                        seen[y, x] = f
                        weights[y, x, 0] = wa * near_a * here
                        weights[y, x, 1] = wb * near_b * here
                wa += step_a
                wb += step_b


@numba.njit(cache=True, fastmath=True)
@no_type_check
def fill_depth(uv, z, faces, depth):
    """Nearest depth only, from both sides, depth linear in the plane of `uv`."""
    height, width = depth.shape
    one, half = np.float32(1), np.float32(0.5)
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay, bx, by, cx, cy = uv[a, 0], uv[a, 1], uv[b, 0], uv[b, 1], uv[c, 0], uv[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx) - half)))
        right = min(width - 1, int(np.floor(max(ax, bx, cx) - half)))
        top = max(0, int(np.ceil(min(ay, by, cy) - half)))
        bottom = min(height - 1, int(np.floor(max(ay, by, cy) - half)))
        scale = one / area
        for y in range(top, bottom + 1):
            py = y + half
            for x in range(left, right + 1):
                px = x + half
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * scale
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * scale
                wc = one - wa - wb
                if wa >= 0 and wb >= 0 and wc >= 0:
                    here = wa * z[a] + wb * z[b] + wc * z[c]
                    depth[y, x] = min(depth[y, x], here)


def samples_of(
    points_cam_m: Float[np.ndarray, "n 3"], intrinsics: Float[np.ndarray, "3 3"], per_px: float
) -> Float[np.ndarray, "n 2"]:
    """Places of points in a picture with `per_px` samples per pixel side, sample centres at .5."""
    safe = np.where(points_cam_m[:, 2:] < NEAR_M, NEAR_M, points_cam_m[:, 2:])
    flat = np.concatenate([points_cam_m[:, :2], safe], 1)
    return ((project(flat, intrinsics) + 0.5) * per_px).astype(np.float32)


def rasterise(
    points_cam_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    side_px: int,
    per_px: int,
) -> Fragments:
    """Draws a scene in front of the camera into a square picture."""
    side = side_px * per_px
    found = Fragments(
        np.full((side, side), FAR_M, np.float32),
        np.full((side, side), -1, np.int32),
        np.empty((side, side, 2), np.float32),
    )
    uv = samples_of(points_cam_m, intrinsics, float(per_px))
    z = np.ascontiguousarray(points_cam_m[:, 2], np.float32)
    _fill(uv, z, faces, *found)
    return found


def depth_map(
    points_cam_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    side_px: int,
    per_px: float,
) -> Float[np.ndarray, "s s"]:
    """A quick depth picture of `side_px * per_px` samples, without triangles near the camera."""
    side = round(side_px * per_px)
    depth = np.full((side, side), FAR_M, np.float32)
    z = np.ascontiguousarray(points_cam_m[:, 2], np.float32)
    in_front = faces[z[faces].min(1) > NEAR_M]
    fill_depth(samples_of(points_cam_m, intrinsics, per_px), z, in_front, depth)
    return depth
