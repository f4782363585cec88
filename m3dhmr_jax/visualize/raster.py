"""The rasteriser: which face is visible at each sample, where on it, and how far away.

Sample (0, 0) of an image with `s` samples per pixel side lies at pixel 0.5 / s - 0.5, as pixel
centres have integer coordinates. Faces are counter-clockwise seen from outside, which is clockwise
in an image whose y axis points down.

Axes: n points, f faces, h w samples.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

NEAR_M = 0.08
FAR_M = np.float32(1e9)


class Fragments(NamedTuple):
    """What is visible at each sample; face -1 is the background, at depth FAR_M."""

    depth_m: Float[np.ndarray, "h w"]
    face: Int[np.ndarray, "h w"]
    # Perspective-correct, of the face's first two corners; undefined in the background.
    weights: Float[np.ndarray, "h w 2"]


@numba.njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _bounds(ax, ay, bx, by, cx, cy, width, height):
    """First and last column and row whose samples a triangle may cover."""
    half = np.float32(0.5)
    left = max(0, int(np.ceil(min(ax, bx, cx) - half)))
    right = min(width - 1, int(np.floor(max(ax, bx, cx) - half)))
    top = max(0, int(np.ceil(min(ay, by, cy) - half)))
    bottom = min(height - 1, int(np.floor(max(ay, by, cy) - half)))
    return left, right, top, bottom


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _fill(uv, z, faces, near_m, both_sides, depth, visible, weights):
    height, width = depth.shape
    one, half = np.float32(1), np.float32(0.5)
    for f in range(len(faces)):
        a, b, c = faces[f]
        if min(z[a], z[b], z[c]) < near_m:
            continue
        ax, ay, bx, by, cx, cy = uv[a, 0], uv[a, 1], uv[b, 0], uv[b, 1], uv[c, 0], uv[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= -1e-9 and not (both_sides and area > 1e-9):
            continue
        left, right, top, bottom = _bounds(ax, ay, bx, by, cx, cy, width, height)
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
                        visible[y, x] = f
                        weights[y, x, 0] = wa * near_a * here
                        weights[y, x, 1] = wb * near_b * here
                wa += step_a
                wb += step_b


@numba.njit(cache=True, fastmath=True)
@no_type_check
def fill_depth(uv, z, faces, depth):
    """Nearest depth only, of both sides of the faces, linear in the plane of `uv`."""
    height, width = depth.shape
    one, half = np.float32(1), np.float32(0.5)
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay, bx, by, cx, cy = uv[a, 0], uv[a, 1], uv[b, 0], uv[b, 1], uv[c, 0], uv[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        left, right, top, bottom = _bounds(ax, ay, bx, by, cx, cy, width, height)
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


@numba.njit(cache=True)
@no_type_check
def vertex_normals(vertices, faces):
    """Unit normals, faces weighted by area."""
    normals = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
        wx, wy, wz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
        for v in (a, b, c):
            normals[v, 0] += uy * wz - uz * wy
            normals[v, 1] += uz * wx - ux * wz
            normals[v, 2] += ux * wy - uy * wx
    for v in range(len(normals)):
        x, y, z = normals[v]
        scale = np.float32(1) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-20))
        for i in range(3):
            normals[v, i] *= scale
    return normals


def sample_positions(
    points_cam_m: Float[np.ndarray, "n 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    samples_per_px: float,
    near_m: float = NEAR_M,
) -> Float[np.ndarray, "n 2"]:
    """Projections in units of samples, sample centres at .5; points nearer than `near_m` are wrong.

    `_fill` skips the faces of such points.
    """
    safe_z = np.where(points_cam_m[:, 2:] < near_m, near_m, points_cam_m[:, 2:])
    homogeneous = np.concatenate([points_cam_m[:, :2], safe_z], 1) @ intrinsics.T
    points_px = homogeneous[:, :2] / homogeneous[:, 2:]
    return ((points_px + 0.5) * samples_per_px).astype(np.float32)


def rasterise(
    points_cam_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    width_px: int,
    height_px: int,
    samples_per_px: int,
    *,
    near_m: float = NEAR_M,
    both_sides: bool = False,
) -> Fragments:
    """Rasterises a mesh seen by a pinhole camera, without faces that reach nearer than `near_m`.

    `both_sides`: also faces seen from behind.
    """
    shape = height_px * samples_per_px, width_px * samples_per_px
    fragments = Fragments(
        np.full(shape, FAR_M, np.float32),
        np.full(shape, -1, np.int32),
        np.empty((*shape, 2), np.float32),
    )
    uv = sample_positions(points_cam_m, intrinsics, float(samples_per_px), near_m)
    z = np.ascontiguousarray(points_cam_m[:, 2], np.float32)
    faces = np.ascontiguousarray(faces, np.int32)  # The loops are compiled for one dtype.
    _fill(uv, z, faces, near_m, both_sides, *fragments)
    return fragments


def depth_map(
    points_cam_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    side_px: int,
    samples_per_px: float,
) -> Float[np.ndarray, "s s"]:
    """Depth at `side_px * samples_per_px` samples per side, without faces near the camera."""
    side = round(side_px * samples_per_px)
    depth_m = np.full((side, side), FAR_M, np.float32)
    z = np.ascontiguousarray(points_cam_m[:, 2], np.float32)
    in_front = faces[z[faces].min(1) > NEAR_M]
    fill_depth(sample_positions(points_cam_m, intrinsics, samples_per_px), z, in_front, depth_m)
    return depth_m
