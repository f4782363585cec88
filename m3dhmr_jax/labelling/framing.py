"""Cuts a hand out of an image as FreiHAND's images show theirs: 224 px, the hand in the centre.

A virtual camera at the place of the real one looks straight at the hand, so that its optical axis
passes through the image's centre, as in FreiHAND's and in rendered images. Its K, and the hand in
its axes, are exact.
Axes: n = 21 joints, v vertices, f faces, h w image, s = 224.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from m3dhmr_jax.math3d import shortest_rotation
from m3dhmr_jax.predict.cameras import mirrored_intrinsics
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.synthetic.camera import project
from m3dhmr_jax.types import FREIHAND_IMAGE_PX
from m3dhmr_jax.visualize.mesh import render_mesh
from m3dhmr_jax.visualize.overlay import scale_intrinsics

# Longer side of the box around the mesh, in the middle of what `synthetic.recipe` renders: the
# hand fits the centred square of 130 px that evaluation crops.
HAND_BOX_PX = 105.0
ROUNDS = 4  # Of centring; each leaves about a tenth of the error.


class FramedHand(NamedTuple):
    """One record of a labelled set."""

    image: UInt8[np.ndarray, "s s 3"]
    # 255 where the mesh covers the image.
    mask: UInt8[np.ndarray, "s s"]
    intrinsics: Float[np.ndarray, "3 3"]
    verts_m: Float[np.ndarray, "v 3"]
    joints_m: Float[np.ndarray, "n 3"]


class Camera(NamedTuple):
    """A camera that looks straight at a hand."""

    # Its axes from those of the image's camera.
    rotation: Float[np.ndarray, "3 3"]
    intrinsics: Float[np.ndarray, "3 3"]


def look_at(verts_m: Float[np.ndarray, "v 3"]) -> Camera:
    """The camera in which the hand is HAND_BOX_PX large and in the centre."""
    rotation, focal_px = np.eye(3), 1.0
    ray = verts_m.mean(axis=0)
    for _ in range(ROUNDS):
        rotation = shortest_rotation(ray, np.array([0.0, 0.0, 1.0]))
        points = project(verts_m @ rotation.T, np.eye(3))
        low, high = points.min(axis=0), points.max(axis=0)
        ray = rotation.T @ np.append((low + high) / 2, 1.0)
        focal_px = HAND_BOX_PX / (high - low).max()
    centre_px = FREIHAND_IMAGE_PX / 2
    intrinsics = np.array([[focal_px, 0, centre_px], [0, focal_px, centre_px], [0, 0, 1]])
    return Camera(rotation, intrinsics)


def frame_hand(
    image: Image,
    intrinsics: Float[np.ndarray, "3 3"],
    verts_m: Float[np.ndarray, "v 3"],
    joints_m: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    *,
    is_left: bool,
) -> FramedHand:
    """The hand as its own camera sees it, mirrored if it is a left one; black outside the image.

    Args:
        verts_m, joints_m: of a right hand, and of the mirror image of a left one.
    """
    if is_left:
        image, intrinsics = image[:, ::-1], mirrored_intrinsics(intrinsics, image.shape[1])
    camera = look_at(verts_m.astype(np.float64))
    verts_m, joints_m = verts_m @ camera.rotation.T, joints_m @ camera.rotation.T
    return FramedHand(
        _warp(image, intrinsics, camera),
        _silhouette(verts_m, faces, camera.intrinsics),
        camera.intrinsics,
        verts_m,
        joints_m,
    )


def _warp(
    image: Image, intrinsics: Float[np.ndarray, "3 3"], camera: Camera
) -> UInt8[np.ndarray, "s s 3"]:
    """What the camera sees; where it shrinks the image, blocks of pixels are averaged first."""
    block = max(int(intrinsics[0, 0] / camera.intrinsics[0, 0]), 1)
    if block > 1:
        height, width = (length // block for length in image.shape[:2])
        whole = image[: height * block, : width * block]
        image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        intrinsics = scale_intrinsics(intrinsics, 1 / block)
    homography = camera.intrinsics @ camera.rotation @ np.linalg.inv(intrinsics)
    size = (FREIHAND_IMAGE_PX, FREIHAND_IMAGE_PX)
    return cv2.warpPerspective(np.ascontiguousarray(image), homography, size)


def _silhouette(
    verts_m: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
) -> UInt8[np.ndarray, "s s"]:
    mesh = render_mesh(verts_m, faces, intrinsics, FREIHAND_IMAGE_PX, FREIHAND_IMAGE_PX)
    mask = np.zeros((FREIHAND_IMAGE_PX, FREIHAND_IMAGE_PX), np.uint8)
    height, width = mesh.coverage.shape
    part = mask[mesh.top : mesh.top + height, mesh.left : mesh.left + width]
    part[:] = np.round(255 * mesh.coverage)
    return mask
