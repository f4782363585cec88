import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.visualize.obj import write_obj


def test_what_is_read_back_is_what_was_written(tmp_path):
    hand = load_builtin()
    write_obj(tmp_path / "hand.obj", hand.verts_m, hand.faces)
    rows = [line.split() for line in (tmp_path / "hand.obj").read_text().splitlines()]
    verts = np.array([row[1:] for row in rows if row[0] == "v"], float)
    faces = np.array([row[1:] for row in rows if row[0] == "f"], int)
    assert len(rows) == len(verts) + len(faces)
    np.testing.assert_allclose(verts, hand.verts_m, atol=5e-7)
    np.testing.assert_array_equal(faces - 1, hand.faces)


def test_vertices_that_are_not_finite_are_refused(tmp_path):
    verts = np.zeros((4, 3))
    verts[2, 1] = np.nan
    with pytest.raises(ValueError, match="vertex 2"):
        write_obj(tmp_path / "hand.obj", verts, np.array([[0, 1, 2]]))
    assert not (tmp_path / "hand.obj").exists()
