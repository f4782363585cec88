"""Renders a triangle mesh on the CPU, without a display or a GPU, to draw it over an image.

Axes: v vertices, f faces, h w part of an image, a b image, q covered samples. Camera frame: x
right, y down, z forward, metres. Pixel centres have integer coordinates.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from m3dhmr_jax.math3d import unit
from m3dhmr_jax.visualize.raster import rasterise, vertex_normals

MESH_COLOUR = (0.74, 0.81, 0.95)  # Pale blue: unlike any skin.
INSIDE_COLOUR = (0.42, 0.45, 0.52)  # Visible through the open wrist.
SAMPLES = 2  # Per pixel and axis.
CONTACT_SHADOW_M = 0.006  # Radius in which a surface casts soft shadow.
NEAR_M = 1e-3


class MeshRendering(NamedTuple):
    """A mesh rendered into the part of an image around it, `left` and `top` px from its corner.

    Colours are premultiplied by coverage.
    """

    colour: Float[np.ndarray, "h w 3"]
    coverage: Float[np.ndarray, "h w"]
    left: int
    top: int

    def over(self, image: UInt8[np.ndarray, "a b 3"]) -> UInt8[np.ndarray, "a b 3"]:
        """A copy of the image with the mesh in front of it."""
        height, width = self.coverage.shape
        canvas = image.copy()
        part = canvas[self.top : self.top + height, self.left : self.left + width]
        mixed = self.colour * np.float32(255) + part * (1 - self.coverage[..., None])
        part[:] = np.minimum(mixed + np.float32(0.5), 255).astype(np.uint8)
        return canvas


def _interpolate(
    values: Float[np.ndarray, "v 3"],
    corners: Int[np.ndarray, "q 3"],
    weights: Float[np.ndarray, "q 2"],
) -> Float[np.ndarray, "q 3"]:
    """Values between vertices, from the barycentric weights of the first two corners."""
    a, b, c = (values[corner] for corner in corners.T)
    return c + weights[:, :1] * (a - c) + weights[:, 1:] * (b - c)


def _unit(*direction: float) -> Float[np.ndarray, "3"]:
    return unit(np.array(direction)).astype(np.float32)


def shade(
    normals: Float[np.ndarray, "q 3"], colours: Float[np.ndarray, "q 3"]
) -> Float[np.ndarray, "q 3"]:
    """Studio light: key light from the upper left, fill light from the right, sky, dark rim."""
    normals = unit(normals)
    inside = normals[:, 2] > 0.15  # At the silhouette, interpolated normals point slightly away.
    key = np.maximum((normals @ _unit(-0.55, -0.75, -0.85) + 0.25) / 1.25, 0)
    fill = np.maximum(normals @ _unit(0.9, 0.1, -0.5), 0)
    sky = 0.5 - 0.5 * normals[:, 1]
    rim = 1 - np.clip(-normals[:, 2], 0, 1)
    light = (0.32 + 0.62 * key + 0.16 * fill + 0.16 * sky) * (1 - 0.4 * rim * rim * rim)
    shine = np.maximum(normals @ _unit(-0.3, -0.42, -0.95), 0)
    for _ in range(4):
        shine = shine * shine
    lit = light[:, None] * colours + 0.10 * shine[:, None]
    lit[inside] = (0.5 + 0.3 * sky[inside])[:, None] * np.array(INSIDE_COLOUR, np.float32)
    return lit


def _contact_shadow(
    depth_m: Float[np.ndarray, "h w"], covered: Bool[np.ndarray, "h w"], samples_per_m: float
) -> Float[np.ndarray, "h w"]:
    """Shadow in [0, 1] where the surface lies behind its surroundings, as between fingers."""
    height, width = depth_m.shape
    small = (max(width // 4, 1), max(height // 4, 1))
    known = cv2.resize(covered.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    depth = cv2.resize(depth_m, small, interpolation=cv2.INTER_AREA)
    sigma = float(np.clip(CONTACT_SHADOW_M * samples_per_m / 4, 0.5, 20))
    mean = cv2.GaussianBlur(depth, (0, 0), sigma) / np.maximum(
        cv2.GaussianBlur(known, (0, 0), sigma), 1e-3
    )
    mean = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip((depth_m - mean - 0.001) / 0.02, 0, 1) * covered


def _box(points_px: Float[np.ndarray, "v 2"], width: int, height: int) -> tuple[int, ...]:
    """Left, top, width and height of the box of pixels around points, inside the image."""
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
) -> MeshRendering:
    """The mesh seen by a pinhole camera; faces are counter-clockwise seen from outside.

    To draw several hands that occlude each other, concatenate them into one mesh.

    Args:
        colours: of each face, RGB in [0, 1]; default: MESH_COLOUR.
        samples: per pixel and axis; 1 is faster, with aliased edges.

    Raises:
        ValueError: if the whole mesh is behind the camera.
    """
    depth_m = verts_cam_m[:, 2]
    if depth_m.max() <= 0:
        raise ValueError(
            f"the mesh extends from z = {depth_m.min():.3g} to {depth_m.max():.3g} m, behind the "
            "camera: pass vertices in camera space (z forward), not relative to the wrist"
        )
    homogeneous = verts_cam_m @ intrinsics.T
    points_px = homogeneous[:, :2] / np.where(depth_m > 0, depth_m, 1)[:, None]
    left, top, box_w, box_h = _box(points_px[depth_m > 0], width, height)
    if not box_w * box_h:
        return MeshRendering(np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32), 0, 0)
    into_box = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    fragments = rasterise(
        verts_cam_m, faces, into_box @ intrinsics, box_w, box_h, samples,
        near_m=NEAR_M, both_sides=True,
    )  # fmt: skip
    covered = fragments.face >= 0
    face, corners = fragments.face[covered], faces[fragments.face[covered]]
    normals = vertex_normals(verts_cam_m.astype(np.float32), faces.astype(np.int32))
    normals = _interpolate(normals, corners, fragments.weights[covered])

    samples_per_m = float(samples * intrinsics[0, 0] / np.median(depth_m[depth_m > 0]))
    fine_depth_m = np.where(covered, fragments.depth_m, np.float32(0))
    shadow = 1 - 0.4 * _contact_shadow(fine_depth_m, covered, samples_per_m)[covered]
    if colours is None:
        colours = np.broadcast_to(np.array(MESH_COLOUR), (len(faces), 3))
    colour = np.zeros((*covered.shape, 3), np.float32)
    colour[covered] = shade(normals, colours.astype(np.float32)[face]) * shadow[:, None]
    coverage = covered.astype(np.float32)
    if samples > 1:
        size = (box_w, box_h)
        colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        coverage = cv2.resize(coverage, size, interpolation=cv2.INTER_AREA)
    return MeshRendering(colour, coverage, left, top)
