"""Pictures of a triangle mesh by z-buffer, in NumPy: no display and no graphics card.

Axes: v vertices, f faces, h w picture, r spans (one row of one face), p covered samples,
q visible samples. Camera frame: x right, y down, z forward, metres. Pixel centres on integers.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

MESH_COLOUR = (0.74, 0.81, 0.95)  # Pale blue: no one's skin, and it stands out from everyone's.
INSIDE_COLOUR = (0.42, 0.45, 0.52)  # Seen through the open wrist.
SAMPLES = 2  # Per pixel and axis.


class MeshPicture(NamedTuple):
    """Colours weighted by coverage: over a picture `below`, `colour + (1 - coverage) * below`."""

    colour: Float[np.ndarray, "h w 3"]
    coverage: Float[np.ndarray, "h w"]

    def over(self, below: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The mesh in front of another picture."""
        mixed = self.colour * 255 + below * (1 - self.coverage[..., None])
        return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def vertex_normals(
    verts: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 3"]:
    """Unit normals, each the mean over the faces around it, weighted by their area."""
    a, b, c = verts[faces].transpose(1, 0, 2)
    per_face = np.cross(b - a, c - a)
    total = np.zeros_like(verts)
    for corner in range(3):
        np.add.at(total, faces[:, corner], per_face)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)


def _edge_functions(corners: Float[np.ndarray, "f 3 2"]) -> Float[np.ndarray, "f 3 3"]:
    """Rows (a, b, c): `a x + b y + c` is the barycentric weight of each corner."""
    homogeneous = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2)
    return np.linalg.inv(homogeneous).transpose(0, 2, 1)


def _spread(counts: Int[np.ndarray, " r"]) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """For runs of these lengths, laid end to end: which run, and the place within it."""
    run = np.repeat(np.arange(len(counts)), counts)
    return run, np.arange(len(run)) - (np.cumsum(counts) - counts)[run]


def visible_faces(
    points_px: Float[np.ndarray, "v 2"],
    depth_m: Float[np.ndarray, " v"],
    faces: Int[np.ndarray, "f 3"],
    width: int,
    height: int,
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"], Float[np.ndarray, "q 3"]]:
    """Where a surface is seen: flat pixel index, nearest face, and barycentric weights there.

    Faces that are seen edge on, or reach behind the camera, are left out.
    """
    corners = points_px[faces].astype(np.float64)
    (ax, ay), (bx, by) = (corners[:, i].T - corners[:, 0].T for i in (1, 2))
    drawn = np.flatnonzero((np.abs(ax * by - ay * bx) > 1e-9) & (depth_m[faces] > 0).all(1))
    corners, weight_of = corners[drawn], _edge_functions(corners[drawn])
    # Inverse depth is linear in the picture.
    nearness_of = np.einsum("fk,fkc->fc", 1 / depth_m[faces[drawn]], weight_of)

    first = np.maximum(np.ceil(corners[..., 1].min(1)), 0).astype(np.int64)
    last = np.minimum(np.floor(corners[..., 1].max(1)), height - 1).astype(np.int64)
    face, row = _spread(np.maximum(last - first + 1, 0))
    row += first[face]
    slope = weight_of[face, :, 0]
    value = weight_of[face, :, 1] * row[:, None] + weight_of[face, :, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -value / slope
    start = np.where(slope > 0, crossing, 0).max(1)
    stop = np.where(slope < 0, crossing, width - 1).min(1)
    level_outside = ((slope == 0) & (value < 0)).any(1)
    start, stop = np.ceil(np.maximum(start, 0)), np.floor(np.minimum(stop, width - 1))
    lengths = np.where(level_outside, 0, np.maximum(stop - start + 1, 0)).astype(np.int64)

    span, column = _spread(lengths)
    base = np.einsum("rc,rc->r", nearness_of[face], np.stack([start, row, np.ones(len(row))], 1))
    nearness = (base[span] + column * nearness_of[face, 0][span]).astype(np.float32)
    pixel = (row * width + start.astype(np.int64))[span] + column
    nearest = np.zeros(width * height, np.float32)
    np.maximum.at(nearest, pixel, nearness)
    seen = np.full(width * height, -1)
    wins = nearness == nearest[pixel]
    seen[pixel[wins]] = face[span[wins]]

    pixel = np.flatnonzero(seen >= 0)
    face = seen[pixel]
    at = np.stack([pixel % width, pixel // width, np.ones(len(pixel))], 1)
    weights = np.einsum("qkc,qc->qk", weight_of[face], at).astype(np.float32)
    return pixel, drawn[face], weights


def _unit(*direction: float) -> Float[np.ndarray, "3"]:
    return (np.array(direction) / np.linalg.norm(direction)).astype(np.float32)


def shade(normals: Float[np.ndarray, "q 3"]) -> Float[np.ndarray, "q 3"]:
    """Soft studio light: key from the upper left, fill from the right, sky above, thin dark rim."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    inside = normals[:, 2] > 0.15  # Interpolated normals lean a little past the rim.
    key = np.maximum((normals @ _unit(-0.55, -0.75, -0.85) + 0.25) / 1.25, 0)
    fill = np.maximum(normals @ _unit(0.9, 0.1, -0.5), 0)
    sky = 0.5 - 0.5 * normals[:, 1]
    facing = np.clip(-normals[:, 2], 0, 1)
    light = (0.32 + 0.62 * key + 0.16 * fill + 0.16 * sky) * (1 - 0.4 * (1 - facing) ** 3)
    gloss = 0.10 * np.maximum(normals @ _unit(-0.3, -0.42, -0.95), 0) ** 24
    outside = light[:, None] * np.array(MESH_COLOUR, np.float32) + gloss[:, None]
    hollow = (0.5 + 0.3 * sky)[:, None] * np.array(INSIDE_COLOUR, np.float32)
    return np.where(inside[:, None], hollow, outside).astype(np.float32)


def _hollows(depth_m: Float[np.ndarray, "h w"], covered: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Shadow in [0, 1] where the surface lies behind its neighbourhood, as between fingers."""
    height, width = depth_m.shape
    small = (max(width // 4, 1), max(height // 4, 1))
    known = cv2.resize(covered.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    depth = cv2.resize(depth_m, small, interpolation=cv2.INTER_AREA)
    sigma = 0.025 * max(small)
    mean = cv2.GaussianBlur(depth, (0, 0), sigma) / np.maximum(
        cv2.GaussianBlur(known, (0, 0), sigma), 1e-3
    )
    mean = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip((depth_m - mean - 0.001) / 0.02, 0, 1) * covered


def render_mesh(
    verts_cam_m: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    width: int,
    height: int,
) -> MeshPicture:
    """The mesh as this camera sees it; faces wind counter-clockwise seen from outside.

    Raises:
        ValueError: if the whole mesh lies behind the camera.
    """
    depth_m = verts_cam_m[:, 2]
    if depth_m.max() <= 0:
        raise ValueError(
            f"the mesh reaches from z = {depth_m.min():.3g} to {depth_m.max():.3g} m, all behind "
            "the camera: give vertices in camera space (z forward), not relative to the wrist"
        )
    fine_w, fine_h = SAMPLES * width, SAMPLES * height
    homogeneous = verts_cam_m @ intrinsics.T
    points_px = homogeneous[:, :2] / np.where(depth_m > 0, depth_m, 1)[:, None]
    points_fine = (points_px + 0.5) * SAMPLES - 0.5
    pixel, face, weights = visible_faces(points_fine, depth_m, faces, fine_w, fine_h)
    normals = vertex_normals(verts_cam_m, faces).astype(np.float32)
    seen_normals = np.einsum("qk,qkc->qc", weights, normals[faces[face]])

    covered = np.zeros(fine_h * fine_w, bool)
    covered[pixel] = True
    depth = np.zeros(fine_h * fine_w, np.float32)
    depth[pixel] = np.einsum("qk,qk->q", weights, depth_m[faces[face]])
    hollow = _hollows(depth.reshape(fine_h, fine_w), covered.reshape(fine_h, fine_w))
    colour = np.zeros((fine_h * fine_w, 3), np.float32)
    colour[pixel] = shade(seen_normals) * (1 - 0.4 * hollow.reshape(-1)[pixel])[:, None]
    size = (width, height)
    coverage = covered.reshape(fine_h, fine_w).astype(np.float32)
    return MeshPicture(
        cv2.resize(colour.reshape(fine_h, fine_w, 3), size, interpolation=cv2.INTER_AREA),
        cv2.resize(coverage, size, interpolation=cv2.INTER_AREA),
    )
