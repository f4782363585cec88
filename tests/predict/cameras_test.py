import json

import numpy as np
import pytest

from m3dhmr_jax.camera.pinhole import project
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    check_intrinsics,
    intrinsics_from_field,
    intrinsics_from_focal_35mm,
    mirrored_intrinsics,
    misfit,
    parse_intrinsics,
)


def test_a_camera_sees_its_angle_across_the_longer_side():
    k = intrinsics_from_field(90.0, 501, 300)
    np.testing.assert_allclose(k, [[250.5, 0, 250], [0, 250.5, 149.5], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(intrinsics_from_field(90.0, 300, 501)[0, 0], 250.5)
    for bad in (0.0, 180.0, -5.0, float("nan")):
        with pytest.raises(ValueError, match=r"field of view of .* between 0 and 180"):
            intrinsics_from_field(bad, 501, 300)


def test_unknown_cameras_see_60_degrees_and_freihands_what_freihands_do():
    np.testing.assert_allclose(assumed_intrinsics(640, 480)[0, 0], 320 / np.tan(np.pi / 6))
    assert 350 < assumed_intrinsics(224, 224)[0, 0] < 500


def test_focal_lengths_on_film_compare_diagonals():
    k = intrinsics_from_focal_35mm(50.0, 3600, 2400)
    np.testing.assert_allclose(k[0, 0], 5000)


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (np.eye(4), r"shape \(4, 4\)"),
        (np.diag([500.0, 0.0, 1.0]), "singular"),
        (np.diag([-500.0, 500.0, 1.0]), "must be positive"),
        (np.diag([500.0, 500.0, 2.0]), r"\[0, 0, 1\]"),
        (np.diag([500.0, np.nan, 1.0]), "all finite"),
    ],
)
def test_matrices_that_are_no_camera_are_refused(k, words):
    with pytest.raises(ValueError, match=words):
        check_intrinsics(k)


def test_k_of_another_size_is_noticed_and_that_of_a_cut_out_is_not():
    k = intrinsics_from_field(60.0, 640, 480)
    assert not misfit(k, 640, 480)
    assert "640 x 480 px, but this one has 1280 x 960" in misfit(k, 1280, 960)
    assert misfit(k, 320, 240)
    assert misfit(k, 960, 720)
    cut_out = k.copy()
    cut_out[:2, 2] -= [300, 80]
    assert not misfit(cut_out, 200, 200)
    assert misfit(cut_out, 100, 100)
    turned = k.copy()
    turned[:2, 2] = [325, 228]  # Cameras do not look exactly through the middle.
    assert not misfit(turned, 640, 480)


def test_the_mirrored_camera_sees_mirrored_points_in_the_mirrored_photo():
    k = np.array([[500.0, 3.0, 111.7], [0.0, 510.0, 80.0], [0, 0, 1]])
    points_m = np.array([[0.1, -0.2, 0.7], [-0.05, 0.02, 0.4]], np.float32)
    mirrored = project(points_m * np.array([-1, 1, 1], np.float32), mirrored_intrinsics(k, 200))
    want = np.array(project(points_m, k))
    want[:, 0] = 199 - want[:, 0]
    np.testing.assert_allclose(mirrored, want, rtol=1e-5)
    np.testing.assert_allclose(mirrored_intrinsics(mirrored_intrinsics(k, 200), 200), k)


def test_k_is_read_from_numbers_and_files(tmp_path):
    k = np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]])
    (tmp_path / "a.json").write_text(json.dumps(k.tolist()))
    (tmp_path / "b.json").write_text(json.dumps({"K": k.tolist()}))
    texts = "500,505,320,240", "500,0,320,0,505,240,0,0,1", tmp_path / "a.json", tmp_path / "b.json"
    for text in texts:
        np.testing.assert_array_equal(parse_intrinsics(str(text)), k)


@pytest.mark.parametrize(
    ("text", "words"),
    [("500,500", "give fx,fy,cx,cy"), ("a,b,c,d", "give"), ("0,0,1,1", "singular")],
)
def test_texts_that_are_no_k_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_intrinsics(text)


def test_files_without_k_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        parse_intrinsics(str(tmp_path / "none.json"))
    for content in ("{}", "[1]", "nonsense", '{"K": "x"}'):
        (tmp_path / "k.json").write_text(content)
        with pytest.raises(ValueError, match=r"k\.json.*3 x 3"):
            parse_intrinsics(str(tmp_path / "k.json"))
