import json

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.intrinsics_file import read_intrinsics

K = np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]])
FLAT = K.ravel().tolist()
FOUR = {"fx": 500, "fy": 505, "cx": 320, "cy": 240}
ROS = """image_width: 640
camera_name: left
camera_matrix:
  rows: 3
  cols: 3
  data: [500.0, 0.0, 320.0, 0.0, 505.0, 240.0, 0.0, 0.0, 1.0]
distortion_coefficients: {rows: 1, cols: 2, data: [0, 0]}
"""


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_intrinsics(path)


@pytest.mark.parametrize(
    "content",
    [
        K.tolist(),
        FLAT,
        FOUR,
        {"K": K.tolist()},
        {"k": FLAT, "D": [0, 0], "P": 12 * [0], "width": 640},
        {"Camera Matrix": K.tolist(), "dist_coeffs": [0]},
        {"cameraMatrix": {"rows": 3, "cols": 3, "data": FLAT}},
        {"intrinsics": FOUR | {"model": "pinhole"}},
        {"cam_intr": K.tolist()},
        {"intrinsic_matrix": K.tolist()},
        {"FX": 500, "Fy": 505, "cx": 320, "cy": 240, "k1": 0.1},
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.YML"])
def test_the_usual_names_are_read(tmp_path, name, content):
    np.testing.assert_array_equal(read(tmp_path, name, content), K)


@pytest.mark.parametrize("name", ["opencv.yml", "opencv.json"])
def test_files_of_opencv_are_read(tmp_path, name):
    file = cv2.FileStorage(str(tmp_path / name), cv2.FileStorage_WRITE)
    file.write("camera_matrix", K)
    file.write("distortion_coefficients", np.zeros((1, 5)))
    file.release()
    np.testing.assert_array_equal(read_intrinsics(tmp_path / name), K)


def test_files_of_old_opencv_and_of_ros_are_read(tmp_path):
    old = f"%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   data: {FLAT}\n"
    np.testing.assert_array_equal(read(tmp_path, "a.yml", old), K)
    np.testing.assert_array_equal(read(tmp_path, "ost.yaml", ROS), K)


def test_matrices_are_read(tmp_path):
    np.savetxt(tmp_path / "K.txt", K)
    np.savetxt(tmp_path / "commas.txt", K, delimiter=", ")
    np.save(tmp_path / "K.npy", K.astype(np.float32))
    for name in ("K.txt", "commas.txt", "K.npy"):
        np.testing.assert_array_equal(read_intrinsics(tmp_path / name), K)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "double quotes"),
        ("a.json", "{}", "it names nothing"),
        ("a.json", {"P": FLAT, "width": 3}, "it names P; width"),
        ("a.json", {"K": FLAT, "cam_intr": FLAT}, "k; camintr"),
        ("a.json", {"K": FLAT} | FOUR, "k; fx, fy, cx, cy"),
        ("a.json", {"K": "none"}, "none"),
        ("a.json", {"K": None}, r"shape \(\)"),
        ("a.json", [FLAT, FLAT], r"shape \(2, 9\)"),
        ("a.yaml", "K: [1, 2\nx: }", "expected ',' or ']'"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a.txt", "fx 500", "'fx'"),
        ("a.npy", "text", "magic string"),
        ("a.json", "[" * 100_000, "recursion"),
    ],
)
def test_other_files_are_rejected(tmp_path, name, content, message):
    with pytest.raises(UserError, match=rf"--K .*{name}: .*{message}.*; it must contain a 3 x 3"):
        read(tmp_path, name, content)


def test_arrays_of_objects_are_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy"):
        read_intrinsics(tmp_path / "a.npy")
    with pytest.raises(UserError, match="no such file"):
        read_intrinsics(tmp_path / "b.npy")
