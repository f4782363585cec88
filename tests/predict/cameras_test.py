import json
import re

import numpy as np
import pytest

from m3dhmr_jax.camera.pinhole import project
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    camera_doubt,
    check_intrinsics,
    intrinsics_from_focal_35mm,
    intrinsics_from_fov,
    is_possible,
    mirrored_intrinsics,
    parse_intrinsics,
)


def test_intrinsics_from_fov_spans_the_longer_side():
    k = intrinsics_from_fov(90.0, 501, 300)
    np.testing.assert_allclose(k, [[250.5, 0, 250], [0, 250.5, 149.5], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(intrinsics_from_fov(90.0, 300, 501)[0, 0], 250.5)


@pytest.mark.parametrize("fov_deg", [0.0, 180.0, -5.0, float("nan")])
def test_intrinsics_from_fov_rejects_impossible_angles(fov_deg):
    with pytest.raises(UserError, match=f"{fov_deg:g}"):
        intrinsics_from_fov(fov_deg, 501, 300)


def test_assumed_intrinsics_depend_on_freihand_and_not_on_the_size():
    np.testing.assert_allclose(assumed_intrinsics(640, 480)[0, 0], 320 / np.tan(np.pi / 6))
    np.testing.assert_allclose(assumed_intrinsics(224, 224)[0, 0], 112 / np.tan(np.pi / 6))
    assert 350 < assumed_intrinsics(224, 224, freihand=True)[0, 0] < 500


def test_focal_35mm_compares_diagonals():
    np.testing.assert_allclose(intrinsics_from_focal_35mm(50.0, 3600, 2400)[0, 0], 5000)


@pytest.mark.parametrize(
    ("k", "value"),
    [
        (np.eye(4), r"\(4, 4\)"),
        (np.diag([500.0, 0.0, 1.0]), r"\[0.0, 0.0, 0.0\]"),
        (np.diag([-500.0, 500.0, 1.0]), "-500"),
        (np.diag([500.0, 500.0, 2.0]), r"2\.0"),
        (np.diag([500.0, np.nan, 1.0]), "nan"),
        (np.diag([500.0, np.inf, 1.0]), "inf"),
        ([[500, 900, 320], [0, 500, 240], [0, 0, 1]], "the skew 900"),
        ([[500, 0, 0], [0, 500, 0], [320, 240, 1]], "by columns: transpose it"),
        ({}, r"K is \{\}: it must be a 3 x 3 matrix"),
        ({"fx": 1}, r"K is \{'fx': 1\}"),
        ([[1, 2], [3]], "3 x 3"),
        ("500,500,320,240", "'500,500,320,240'"),
        (5, r"shape \(\)"),
    ],
)
def test_check_intrinsics_rejects_matrices_that_are_not_a_camera(k, value):
    with pytest.raises(UserError, match=value):
        check_intrinsics(k)


def camera(fx, fy, cx, cy):
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def scaled(k, factor):
    """K of a copy of its image."""
    return np.diag([factor, factor, 1]) @ k


K_640 = intrinsics_from_fov(60.0, 640, 480)


@pytest.mark.parametrize(
    ("k", "width", "height"),
    [
        (K_640, 640, 480),
        (camera(554, 554, 325, 228), 640, 480),  # As of a real camera.
        (camera(982, 981, 112, 112), 224, 224),  # FreiHAND's narrowest and widest cut-outs, and
        (camera(1131, 1131, 112, 112), 224, 224),  # those that are off the middle.
        (camera(423, 423, 112, 112), 224, 224),
        (camera(554, 554, 155.5, 118.7), 224, 224),
        (camera(627, 627, 146.4, 79.9), 224, 224),
        (camera(554, 554, 20, 160), 200, 200),  # A cut-out.
        (camera(300, 300, 640, 480), 1280, 960),  # An action camera.
    ],
)
def test_cameras_are_plausible(k, width, height):
    assert not camera_doubt(k, width, height)


def test_freihands_cameras_are_plausible(reference):
    paths = sorted((reference / "freihand_photos").glob("*_K.npy"))
    assert paths
    for path in paths:
        assert not camera_doubt(np.load(path).astype(float), 224, 224), path


@pytest.mark.parametrize("factor", [0.5, 1 / 1.2, 1.2, 2.0, 3.0])
def test_k_of_a_copy_of_another_size_is_noticed(factor):
    size = f"{640 * factor:.0f} x {480 * factor:.0f} px"
    doubt = camera_doubt(scaled(camera(554, 554, 319.5, 239.5), factor), 640, 480)
    assert "scale K with the image" in doubt
    assert (
        np.abs(
            np.subtract(
                *(
                    np.array(text.split(" px")[0].split(" x "), float)
                    for text in (size, doubt.partition("an image of ")[2])
                )
            )
        ).max()
        <= 2
    )


def test_k_of_the_upright_image_and_of_another_sensor_are_noticed():
    doubt = camera_doubt(camera(1000, 1000, 960, 540), 1080, 1920)
    assert "rotated" in doubt
    assert "4000 x 3000 px" in camera_doubt(camera(3000, 3000, 1999.5, 1499.5), 1920, 1080)


@pytest.mark.parametrize("focal", [26.0, 50.0])
def test_focal_lengths_in_millimetres_are_noticed(focal):
    k = camera(focal, focal, 320, 240)
    text = rf"{focal:g} and {focal:g}.* degrees .*millimetres"
    if focal == 26:
        with pytest.raises(UserError, match=text):
            camera_doubt(k, 640, 480)
    else:
        assert re.search(text, camera_doubt(k, 640, 480))


def test_a_principal_point_before_the_first_pixel_is_noticed():
    doubt = camera_doubt(camera(500, 500, -50, 240), 640, 480)
    assert "(-50, 240), outside this image of 640 x 480 px" in doubt


def test_the_focal_length_of_a_larger_image_is_noticed():
    assert "larger image" in camera_doubt(camera(6000, 6000, 320, 240), 640, 480)


@pytest.mark.parametrize(
    "k",
    [
        camera(1e9, 1e9, 320, 240),
        camera(1e-9, 1e-9, 320, 240),
        camera(500, 500, 1e9, 240),
        camera(500, 500, 320, -1e300),
        camera(500, 1, 320, 240),
    ],
)
def test_impossible_cameras_are_rejected(k):
    assert not is_possible(k, 640, 480)
    with pytest.raises(UserError, match="no camera has this K"):
        camera_doubt(k, 640, 480)


def test_mirrored_intrinsics_project_mirrored_points():
    k = np.array([[500.0, 3.0, 111.7], [0.0, 510.0, 80.0], [0, 0, 1]])
    points_m = np.array([[0.1, -0.2, 0.7], [-0.05, 0.02, 0.4]], np.float32)
    mirrored = project(points_m * np.array([-1, 1, 1], np.float32), mirrored_intrinsics(k, 200))
    want = np.array(project(points_m, k))
    want[:, 0] = 199 - want[:, 0]
    np.testing.assert_allclose(mirrored, want, rtol=1e-5)
    np.testing.assert_allclose(mirrored_intrinsics(mirrored_intrinsics(k, 200), 200), k)


def test_parse_intrinsics_reads_numbers_and_files(tmp_path, monkeypatch):
    k = np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]])
    (tmp_path / "a.JSON").write_text(json.dumps(k.tolist()))
    monkeypatch.setenv("HOME", str(tmp_path))
    texts = "500,505,320,240", "500, 0,320,0,505,240,0,0,1", tmp_path / "a.JSON", "~/a.JSON"
    for text in texts:
        np.testing.assert_array_equal(parse_intrinsics(str(text)), k)


@pytest.mark.parametrize("text", ["500,500", "a,b,c,d", "0,0,1,1", "none.json", "nan,1,1,1", ""])
def test_parse_intrinsics_rejects_texts_that_are_not_a_k(text):
    value = {"": "--K", "0,0,1,1": r"\[0.0, 0.0, 1.0\]", "nan,1,1,1": "all finite"}.get(text, text)
    with pytest.raises(UserError, match=value):
        parse_intrinsics(text)
