"""Pictures of a triangle mesh by z-buffer, in NumPy: no display and no graphics card.

Axes: v vertices, f faces, h w picture, r spans (one row of one face), p covered samples,
q visible samples, c values. Camera frame: x right, y down, z forward, metres. Pixel centres on
integers.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from m3dhmr_jax.math3d import unit

MESH_COLOUR = (0.74, 0.81, 0.95)  # Pale blue: no one's skin, and it stands out from everyone's.
INSIDE_COLOUR = (0.42, 0.45, 0.52)  # Seen through the open wrist.
SAMPLES = 2  # Per pixel and axis.
HOLLOW_M = 0.006  # How far around it a point looks for what shadows it.


class MeshPicture(NamedTuple):
    """The part of a picture that a mesh may cover, `left` and `top` pixels from its corner.

    Colours are weighted by coverage: over a picture `below`, `colour + (1 - coverage) * below`.
    """

    colour: Float[np.ndarray, "h w 3"]
    coverage: Float[np.ndarray, "h w"]
    left: int
    top: int

    def over(self, below: UInt8[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
        """The mesh in front of a whole picture."""
        height, width = self.coverage.shape
        picture = below.copy()
        part = picture[self.top : self.top + height, self.left : self.left + width]
        mixed = self.colour * np.float32(255) + part * (1 - self.coverage[..., None])
        part[:] = np.minimum(mixed + np.float32(0.5), 255).astype(np.uint8)
        return picture


def vertex_normals(
    verts: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 3"]:
    """Unit normals, each the mean over the faces around it, weighted by their area."""
    a, b, c = verts[faces].transpose(1, 0, 2)
    per_face = np.cross(b - a, c - a)
    total = np.zeros_like(verts)
    for corner in range(3):
        np.add.at(total, faces[:, corner], per_face)
    return unit(total)


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


def _blend(
    weights: Float[np.ndarray, "q 3"],
    values: Float[np.ndarray, "v c"],
    corners: Int[np.ndarray, "q 3"],
) -> Float[np.ndarray, "q c"]:
    """Values of vertices in between them."""
    parts = (weights[:, i, None] * values[corners[:, i]] for i in range(3))
    return sum(parts, np.zeros((), np.float32))


def _unit(*direction: float) -> Float[np.ndarray, "3"]:
    return unit(np.array(direction)).astype(np.float32)


def shade(
    normals: Float[np.ndarray, "q 3"], colours: Float[np.ndarray, "q 3"]
) -> Float[np.ndarray, "q 3"]:
    """Soft studio light: key from the upper left, fill from the right, sky above, thin dark rim."""
    normals = unit(normals)
    inside = normals[:, 2] > 0.15  # Interpolated normals lean a little past the rim.
    key = np.maximum((normals @ _unit(-0.55, -0.75, -0.85) + 0.25) / 1.25, 0)
    fill = np.maximum(normals @ _unit(0.9, 0.1, -0.5), 0)
    sky = 0.5 - 0.5 * normals[:, 1]
    rim = 1 - np.clip(-normals[:, 2], 0, 1)
    light = (0.32 + 0.62 * key + 0.16 * fill + 0.16 * sky) * (1 - 0.4 * rim * rim * rim)
    shine = np.maximum(normals @ _unit(-0.3, -0.42, -0.95), 0)
    for _ in range(4):
        shine = shine * shine
    lit = light[:, None] * colours + 0.10 * shine[:, None]
    hollow = (0.5 + 0.3 * sky[inside])[:, None] * np.array(INSIDE_COLOUR, np.float32)
    lit[inside] = hollow
    return lit


def _hollows(
    depth_m: Float[np.ndarray, "h w"], covered: Bool[np.ndarray, "h w"], per_m: float
) -> Float[np.ndarray, "h w"]:
    """Shadow in [0, 1] where the surface lies behind its neighbourhood, as between fingers."""
    height, width = depth_m.shape
    small = (max(width // 4, 1), max(height // 4, 1))
    known = cv2.resize(covered.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    depth = cv2.resize(depth_m, small, interpolation=cv2.INTER_AREA)
    sigma = float(np.clip(HOLLOW_M * per_m / 4, 0.5, 20))
    mean = cv2.GaussianBlur(depth, (0, 0), sigma) / np.maximum(
        cv2.GaussianBlur(known, (0, 0), sigma), 1e-3
    )
    mean = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip((depth_m - mean - 0.001) / 0.02, 0, 1) * covered


def _box(points_px: Float[np.ndarray, "v 2"], width: int, height: int) -> tuple[int, ...]:
    """Left, top, width and height of the pixels around points, inside the picture."""
    limits = np.array([width, height])
    low = np.clip(np.floor(points_px.min(0)) - 1, 0, limits).astype(int)
    high = np.clip(np.ceil(points_px.max(0)) + 2, low, limits).astype(int)
    return *low.tolist(), *(high - low).tolist()


def render_mesh(
    verts_cam_m: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    width: int,
    height: int,
    colours: Float[np.ndarray, "f 3"] | None = None,
    samples: int = SAMPLES,
) -> MeshPicture:
    """The mesh as this camera sees it; faces wind counter-clockwise seen from outside.

    Several hands are one mesh of several parts, which hide each other where they should.
    `colours`: of each face, RGB in [0, 1]; MESH_COLOUR unless given. `samples`: per pixel and
    axis; 1 draws in a third of the time, with hard edges.

    Raises:
        ValueError: if the whole mesh lies behind the camera.
    """
    depth_m = verts_cam_m[:, 2]
    if depth_m.max() <= 0:
        raise ValueError(
            f"the mesh reaches from z = {depth_m.min():.3g} to {depth_m.max():.3g} m, all behind "
            "the camera: give vertices in camera space (z forward), not relative to the wrist"
        )
    homogeneous = verts_cam_m @ intrinsics.T
    points_px = homogeneous[:, :2] / np.where(depth_m > 0, depth_m, 1)[:, None]
    left, top, box_w, box_h = _box(points_px[depth_m > 0], width, height)
    if not box_w * box_h:
        return MeshPicture(np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32), 0, 0)
    fine_w, fine_h = samples * box_w, samples * box_h
    points_fine = (points_px - [left, top] + 0.5) * samples - 0.5
    pixel, face, weights = visible_faces(points_fine, depth_m, faces, fine_w, fine_h)
    normals = vertex_normals(verts_cam_m, faces).astype(np.float32)
    corners = faces[face]
    seen_normals = _blend(weights, normals, corners)

    covered = np.zeros((fine_h, fine_w), bool)
    covered.reshape(-1)[pixel] = True
    depth = np.zeros((fine_h, fine_w), np.float32)
    depth.reshape(-1)[pixel] = _blend(weights, depth_m[:, None].astype(np.float32), corners)[:, 0]
    per_m = float(samples * intrinsics[0, 0] / np.median(depth_m[depth_m > 0]))
    shadow = 1 - 0.4 * _hollows(depth, covered, per_m).reshape(-1)[pixel]
    if colours is None:
        colours = np.broadcast_to(np.array(MESH_COLOUR), (len(faces), 3))
    colour = np.zeros((fine_h, fine_w, 3), np.float32)
    colour.reshape(-1, 3)[pixel] = (
        shade(seen_normals, colours.astype(np.float32)[face]) * shadow[:, None]
    )
    coverage = covered.astype(np.float32)
    if samples > 1:
        size = (box_w, box_h)
        colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        coverage = cv2.resize(coverage, size, interpolation=cv2.INTER_AREA)
    return MeshPicture(colour, coverage, left, top)
