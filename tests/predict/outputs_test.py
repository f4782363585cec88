import io

import cv2
import numpy as np
import pytest
import trimesh

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.outputs import (
    HAND_ARRAYS,
    MAX_JPEG_PX,
    MESH_KINDS,
    jpeg_file,
    mesh_file,
)
from m3dhmr_jax.predict.predictor import PredictedHands
from m3dhmr_jax.predict.shards import HAND_COLUMNS, SCHEMA


@pytest.mark.parametrize("kind", MESH_KINDS)
def test_mesh_files_can_be_read_back(kind):
    hand = load_builtin()
    content = mesh_file(kind, hand.verts_m, hand.faces)
    mesh = trimesh.load_mesh(io.BytesIO(content), file_type=kind, process=False)
    signs = [1, -1, -1] if kind == "glb" else [1, 1, 1]
    np.testing.assert_allclose(mesh.vertices, hand.verts_m * signs, atol=5e-7)
    np.testing.assert_array_equal(mesh.faces, hand.faces)


def test_obj_files_hold_vertices_and_faces_only():
    hand = load_builtin()
    content = mesh_file("obj", hand.verts_m, hand.faces).decode()
    rows = [line.split() for line in content.splitlines() if line]
    assert [row[0] for row in rows] == ["v"] * 778 + ["f"] * 1538
    assert all(len(number.partition(".")[2]) >= 6 for row in rows[:778] for number in row[1:])


@pytest.mark.parametrize("kind", MESH_KINDS)
def test_mesh_files_reject_vertices_that_are_not_finite(kind):
    verts_m = np.zeros((4, 3))
    verts_m[2, 1] = np.nan
    with pytest.raises(UserError, match=rf"vertex 2 .*\.{kind}"):
        mesh_file(kind, verts_m, np.array([[0, 1, 2]]))


def test_jpeg_files_are_encoded_up_to_the_format_s_limit():
    wide = np.zeros((2, MAX_JPEG_PX, 3), np.uint8)
    image = cv2.imdecode(np.frombuffer(jpeg_file(wide), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == wide.shape
    with pytest.raises(UserError, match=f"{MAX_JPEG_PX + 1} x 2 px"):
        jpeg_file(np.zeros((2, MAX_JPEG_PX + 1, 3), np.uint8))


def test_names_are_the_same_from_predictor_to_files():
    assert tuple(HAND_COLUMNS) == HAND_ARRAYS
    assert {*HAND_ARRAYS, "handedness"} <= set(PredictedHands._fields)
    assert {*HAND_ARRAYS, "handedness"} <= set(SCHEMA.names)
