import shutil
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest

from m3dhmr_jax.camera import pinhole
from m3dhmr_jax.camera.root_recovery import recover_roots
from m3dhmr_jax.export import place
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import rotate_back, to_camera
from m3dhmr_jax.predict import cameras, crops, images
from m3dhmr_jax.types import MESH_UNIT_M, Prediction

K = np.array([[520.0, 0, 330], [0, 515, 236], [0, 0, 1]])
BOX = np.array([180.0, 90.0, 150.0, 170.0])
SIZE = 64


def drawn_problems(n=60):
    """Hands in any pose of the wrist, with noise and up to seven outliers."""
    rng = np.random.default_rng(7)
    hand = load_builtin()
    joints = hand.joint_regressor @ hand.verts_m
    points, landmarks, ks = [], [], []
    for i in range(n):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        points.append((joints - joints[0]) @ rotation * rng.uniform(0.8, 1.2))
        t_m = np.array([*rng.uniform(-0.2, 0.2, 2), rng.uniform(0.3, 1.5)])
        fx, fy = rng.uniform(300, 900, 2)
        k = np.array([[fx, 0, 320], [0, fy, 240], [0, 0, 1]])
        px = np.asarray(pinhole.project(points[-1] + t_m, k))
        px = px + rng.normal(0, rng.uniform(0, 3), px.shape)
        outliers = rng.permutation(21)[: i % 8]
        px[outliers] += rng.normal(0, 60, (len(outliers), 2))
        landmarks.append(px)
        ks.append(k)
    return np.array(points), np.array(landmarks), np.array(ks)


def check_roots(points, landmarks_px, ks):
    """The position within 0.1 mm, its deviation and the noise within 1%."""
    inputs = (np.asarray(x, np.float32) for x in (points, landmarks_px, ks))
    want = recover_roots(*inputs)
    got = [place.recover_root(*problem) for problem in zip(points, landmarks_px, ks, strict=True)]
    np.testing.assert_allclose([root.t_m for root in got], want.t_m, atol=1e-4)
    deviation_m = [np.sqrt(np.diag(root.covariance_m2)) for root in got]
    want_m = np.sqrt(np.einsum("kii->ki", np.asarray(want.covariance_m2)))
    np.testing.assert_allclose(deviation_m, want_m, rtol=0.01)
    np.testing.assert_allclose([root.noise_px for root in got], want.noise_px, rtol=0.01, atol=1e-3)


def test_recover_root_equals_the_package_on_drawn_problems():
    check_roots(*drawn_problems())


@pytest.mark.parity
@pytest.mark.parametrize("prefix", ["", "poly_"])
def test_recover_root_equals_the_package_on_recorded_problems(reference, prefix):
    problems = np.load(reference / "registration.npz")
    check_roots(*(problems[f"{prefix}{name}"] for name in ("joints_rel", "uv", "K")))


@pytest.mark.parametrize("spread_px", [0.0, 1e-2, 50.0, 1e4])
def test_recover_root_is_finite_for_random_landmarks(spread_px):
    landmarks_px = 112 + spread_px * np.random.default_rng(0).normal(size=(21, 2))
    for points in (drawn_problems(1)[0][0], np.zeros((21, 3))):
        root = place.recover_root(points, landmarks_px, K)
        assert np.isfinite(root.t_m).all()
        assert np.isfinite(root.covariance_m2).all()
        assert 0 < root.t_m[2] <= place.FARTHEST_M


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("direction_rad", [0.0, 0.7, -2.5])
def test_place_equals_the_package(side, direction_rad):
    """For a left hand the package mirrors the photo, K, the box and what comes out."""
    hand, rng = load_builtin(), np.random.default_rng(1)
    width, sign = 640, -1 if side == "left" else 1
    vertices_m = hand.verts_m.astype(np.float32)
    joints_m = hand.joint_regressor @ vertices_m
    landmarks_px = SIZE * (0.5 + 4 * (joints_m[:, :2] - joints_m[:, :2].mean(axis=0)))
    landmarks_px = (landmarks_px + rng.normal(0, 0.5, (21, 2))).astype(np.float32)

    k, box_px = K, BOX[None]
    if side == "left":
        k, box_px = cameras.mirrored_intrinsics(K, width), crops.mirrored_boxes(box_px, width)
    matrix = crops.crop_matrix(crops.crops_around(box_px)[0], SIZE, sign * direction_rad)
    img_from_crop = np.asarray(pinhole.invert_affine(matrix), np.float32)
    # The network sees any hand; `rotate_back` turns it as the photo is.
    prediction = Prediction(vertices_m[None] / MESH_UNIT_M, landmarks_px[None] / SIZE)
    prediction = rotate_back(prediction, img_from_crop[None])
    inputs = img_from_crop[None], k.astype(np.float32)[None], hand.joint_regressor, SIZE
    hands = to_camera(prediction, *inputs)
    want = type(hands)(*(np.array(x[0]) for x in hands))

    square = place.square_of_box(BOX, direction_rad)
    crop_from_img = place.crop_matrix(square, SIZE, side)
    got = place.place(vertices_m, joints_m, landmarks_px, crop_from_img, K)
    flip = np.array([sign, 1, 1])
    np.testing.assert_allclose(got.vertices_m, want.verts_m * flip, atol=1e-4)
    np.testing.assert_allclose(got.joints_m, want.joints_m * flip, atol=1e-4)
    seen_px = want.landmarks_px
    if side == "left":
        seen_px[:, 0] = width - 1 - seen_px[:, 0]
    np.testing.assert_allclose(got.landmarks_px, seen_px, atol=1e-3)
    covariance_m2 = want.root_covariance_m2 * flip * flip[:, None]
    np.testing.assert_allclose(got.root_covariance_m2, covariance_m2, rtol=0.02, atol=1e-7)
    np.testing.assert_allclose(got.noise_px, want.noise_px, rtol=0.01)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_crop_equals_the_package(side, scale):
    """The same pixels but for rounding, with and without blocks."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    photo = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    box_px, direction_rad = BOX * scale + 20, 0.7
    square = place.square_of_box(box_px, direction_rad)
    part, matrix = place.region(photo, place.crop_matrix(square, SIZE, side), SIZE)
    got = cv2.warpAffine(part, matrix, (SIZE, SIZE))
    box_px, sign = box_px[None], 1
    if side == "left":
        photo, box_px, sign = photo[:, ::-1], crops.mirrored_boxes(box_px, 640), -1
    wanted = crops.crop_matrix(crops.crops_around(box_px)[0], SIZE, sign * direction_rad)
    want = crops.crop(photo, wanted, SIZE)
    assert want.std() > 30
    np.testing.assert_allclose(got.astype(int), want.astype(int), atol=1)


def test_region_says_that_a_box_lies_outside():
    matrix = place.crop_matrix(place.square_of_box(np.array([900, 90, 50, 50])), SIZE, "right")
    with pytest.raises(ValueError, match="640 x 480 px"):
        place.region(np.zeros((480, 640, 3), np.uint8), matrix, SIZE)


def test_crop_matrix_rejects_an_unknown_side():
    with pytest.raises(ValueError, match="'Left'"):
        place.crop_matrix(place.square_of_box(BOX), SIZE, "Left")


def test_square_of_landmarks_equals_the_package():
    for landmarks_px in drawn_problems(5)[1]:
        square = place.square_of_landmarks(landmarks_px)
        (x, y, side, _) = crops.crops_of_landmarks(landmarks_px[None])[0]
        np.testing.assert_allclose(square.centre_px, [x + side / 2, y + side / 2])
        np.testing.assert_allclose(square.side_px, side)
        (direction_rad,) = crops.hand_directions(landmarks_px[None])
        np.testing.assert_allclose(square.direction_rad, direction_rad)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (300, 501)])
def test_intrinsics_equal_those_of_the_package(width, height):
    assumed = cameras.assumed_intrinsics(width, height)
    np.testing.assert_allclose(place.intrinsics(width, height), assumed)
    of_exif = cameras.intrinsics_from_focal_35mm(26.0, width, height)
    np.testing.assert_allclose(place.intrinsics(width, height, 26.0), of_exif)


def test_focal_length_is_read_from_exif(tmp_path):
    path, exif = tmp_path / "photo.jpg", PIL.Image.Exif()
    exif.get_ifd(images.EXIF_FOLDER)[images.EXIF_FOCAL_35MM] = 26
    PIL.Image.new("RGB", (60, 40)).save(path, exif=exif)
    assert place.read_focal_35mm(path) == 26
    PIL.Image.new("RGB", (60, 40)).save(path)
    assert place.read_focal_35mm(path) is None
    assert place.read_focal_35mm(tmp_path / "none.jpg") is None


def test_place_needs_numpy_alone(tmp_path):
    """The copy beside a network is imported without the package."""
    shutil.copy(place.__file__, tmp_path)
    code = "import sys, place; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-S", "-c", code]
    path = {"PYTHONPATH": f"{tmp_path}:{np.__path__[0]}/.."}
    found = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    assert "numpy" in found.stdout.split()
    assert not {"jax", "m3dhmr_jax", "scipy", "cv2", "PIL"} & set(found.stdout.split())
