import cv2
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.labelling.framing import HAND_BOX_PX, frame_hand
from m3dhmr_jax.predict.cameras import intrinsics_from_fov
from m3dhmr_jax.synthetic.camera import project

HAND = load_builtin()


def place(position_m):
    """The hand's vertices and joints there, at rest."""
    verts_m = HAND.verts_m - HAND.verts_m.mean(axis=0) + np.array(position_m)
    return verts_m, HAND.joint_regressor @ verts_m


def dotted(points_px, width, height):
    """A black image with a white blob around each point."""
    image = np.zeros((height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    for u, v in points_px:
        blob = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (width / 250) ** 2))
        image = np.maximum(image, blob[..., None].astype(np.uint8))
    return image


@pytest.mark.parametrize("is_left", [False, True])
@pytest.mark.parametrize("size_px", [(400, 300), (1601, 1203)])
@pytest.mark.parametrize("position_m", [(0.0, 0.0, 0.5), (0.12, -0.08, 0.5), (-0.1, 0.08, 0.4)])
def test_joints_are_where_k_projects_them(position_m, size_px, is_left):
    """Also off the axis, and where blocks of pixels are averaged."""
    k = intrinsics_from_fov(60.0, *size_px)
    k[0, 2] += size_px[0] / 30
    verts_m, joints_m = place(position_m)
    mirror = np.array([-1 if is_left else 1, 1, 1])
    for joint in (0, 4, 20):
        image = dotted(project(joints_m[joint : joint + 1] * mirror, k), *size_px)
        framed = frame_hand(image, k, verts_m, joints_m, HAND.faces, is_left=is_left)
        grey = framed.image[..., 0].astype(float)
        y, x = np.mgrid[:224, :224]
        centre_px = np.array([(grey * x).sum(), (grey * y).sum()]) / grey.sum()
        want_px = project(framed.joints_m[joint : joint + 1], framed.intrinsics)[0]
        np.testing.assert_allclose(centre_px, want_px, atol=0.3)


def test_the_hand_is_in_the_centre_and_of_freihand_s_size():
    for position_m in [(0.0, 0.0, 0.5), (0.2, -0.1, 0.5), (0.0, 0.0, 2.0)]:
        verts_m, joints_m = place(position_m)
        image, k = np.zeros((300, 400, 3), np.uint8), intrinsics_from_fov(60.0, 400, 300)
        framed = frame_hand(image, k, verts_m, joints_m, HAND.faces, is_left=False)
        points_px = project(framed.verts_m, framed.intrinsics)
        low, high = points_px.min(axis=0), points_px.max(axis=0)
        np.testing.assert_allclose((high - low).max(), HAND_BOX_PX, atol=0.1)
        np.testing.assert_allclose((low + high) / 2, 112, atol=0.1)
        left, top, width, height = cv2.boundingRect((framed.mask > 127).astype(np.uint8))
        np.testing.assert_allclose([left, top], low, atol=1)
        np.testing.assert_allclose([left + width - 1, top + height - 1], high, atol=1)


def test_only_the_camera_is_rotated():
    verts_m, joints_m = place((0.2, 0.1, 0.6))
    image, k = np.zeros((300, 400, 3), np.uint8), intrinsics_from_fov(60.0, 400, 300)
    framed = frame_hand(image, k, verts_m, joints_m, HAND.faces, is_left=False)
    distances_m = np.linalg.norm(verts_m, axis=1)
    np.testing.assert_allclose(np.linalg.norm(framed.verts_m, axis=1), distances_m, rtol=1e-6)
    np.testing.assert_allclose(HAND.joint_regressor @ framed.verts_m, framed.joints_m, atol=1e-6)
