import numpy as np
import pytest
import trimesh

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.outputs import HAND_ARRAYS, MESH_KINDS, write_mesh
from m3dhmr_jax.predict.predictor import PredictedHands
from m3dhmr_jax.predict.shards import HAND_COLUMNS, SCHEMA


@pytest.mark.parametrize("kind", MESH_KINDS)
def test_write_mesh_can_be_read_back(tmp_path, kind):
    hand = load_builtin()
    write_mesh(tmp_path / f"hand.{kind}", hand.verts_m, hand.faces)
    mesh = trimesh.load_mesh(tmp_path / f"hand.{kind}", process=False)
    signs = [1, -1, -1] if kind == "glb" else [1, 1, 1]
    np.testing.assert_allclose(mesh.vertices, hand.verts_m * signs, atol=5e-7)
    np.testing.assert_array_equal(mesh.faces, hand.faces)


def test_obj_files_hold_vertices_and_faces_only(tmp_path):
    hand = load_builtin()
    write_mesh(tmp_path / "hand.obj", hand.verts_m, hand.faces)
    rows = [line.split() for line in (tmp_path / "hand.obj").read_text().splitlines() if line]
    assert [row[0] for row in rows] == ["v"] * 778 + ["f"] * 1538
    assert all(len(number.partition(".")[2]) >= 6 for row in rows[:778] for number in row[1:])
    assert {path.name for path in tmp_path.iterdir()} == {"hand.obj"}


@pytest.mark.parametrize("kind", MESH_KINDS)
def test_write_mesh_rejects_vertices_that_are_not_finite(tmp_path, kind):
    verts_m = np.zeros((4, 3))
    verts_m[2, 1] = np.nan
    with pytest.raises(UserError, match="vertex 2"):
        write_mesh(tmp_path / f"hand.{kind}", verts_m, np.array([[0, 1, 2]]))
    assert not list(tmp_path.iterdir())


def test_names_are_the_same_from_predictor_to_files():
    assert tuple(HAND_COLUMNS) == HAND_ARRAYS
    assert {*HAND_ARRAYS, "handedness"} <= set(PredictedHands._fields)
    assert {*HAND_ARRAYS, "handedness"} <= set(SCHEMA.names)
