import json

import numpy as np
import pytest

from m3dhmr_jax.camera.pinhole import project
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.cameras import (
    assumed_intrinsics,
    check_intrinsics,
    intrinsics_from_focal_35mm,
    intrinsics_from_fov,
    intrinsics_mismatch,
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
    ],
)
def test_check_intrinsics_rejects_matrices_that_are_not_a_camera(k, value):
    with pytest.raises(UserError, match=value):
        check_intrinsics(k)


def test_intrinsics_mismatch_detects_another_size_but_not_a_cut_out():
    k = intrinsics_from_fov(60.0, 640, 480)
    assert not intrinsics_mismatch(k, 640, 480)
    assert "640 x 480 px" in intrinsics_mismatch(k, 1280, 960)
    assert intrinsics_mismatch(k, 320, 240)
    assert intrinsics_mismatch(k, 960, 720)
    cut_out = k.copy()
    cut_out[:2, 2] -= [300, 80]
    assert not intrinsics_mismatch(cut_out, 200, 200)
    assert intrinsics_mismatch(cut_out, 100, 100)
    off_centre = k.copy()
    off_centre[:2, 2] = [325, 228]  # As of a real camera.
    assert not intrinsics_mismatch(off_centre, 640, 480)


def test_mirrored_intrinsics_project_mirrored_points():
    k = np.array([[500.0, 3.0, 111.7], [0.0, 510.0, 80.0], [0, 0, 1]])
    points_m = np.array([[0.1, -0.2, 0.7], [-0.05, 0.02, 0.4]], np.float32)
    mirrored = project(points_m * np.array([-1, 1, 1], np.float32), mirrored_intrinsics(k, 200))
    want = np.array(project(points_m, k))
    want[:, 0] = 199 - want[:, 0]
    np.testing.assert_allclose(mirrored, want, rtol=1e-5)
    np.testing.assert_allclose(mirrored_intrinsics(mirrored_intrinsics(k, 200), 200), k)


def test_parse_intrinsics_reads_numbers_and_files(tmp_path):
    k = np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]])
    (tmp_path / "a.json").write_text(json.dumps(k.tolist()))
    (tmp_path / "b.json").write_text(json.dumps({"K": k.tolist()}))
    texts = "500,505,320,240", "500,0,320,0,505,240,0,0,1", tmp_path / "a.json", tmp_path / "b.json"
    for text in texts:
        np.testing.assert_array_equal(parse_intrinsics(str(text)), k)


@pytest.mark.parametrize("text", ["500,500", "a,b,c,d", "0,0,1,1", "none.json"])
def test_parse_intrinsics_rejects_texts_that_are_not_a_k(text):
    with pytest.raises(UserError, match=r"\[0.0, 0.0, 1.0\]" if text == "0,0,1,1" else text):
        parse_intrinsics(text)
