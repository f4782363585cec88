import re

import numpy as np
import pytest

from m3dhmr_jax.mesh.spirals import spirals


@pytest.mark.parity
def test_spirals_match_mobrecon(reference):
    meshes = np.load(reference / "mesh_hierarchy.npz")
    expected = np.load(reference / "spirals.npz")
    assert expected.files
    for name in expected.files:
        match = re.fullmatch(r"spiral_l(\d+)_seq(\d+)_dil(\d+)", name)
        assert match, name
        level, length, dilation = map(int, match.groups())
        vertices, faces = meshes[f"vertices_{level}"], meshes[f"faces_{level}"]
        np.testing.assert_array_equal(
            spirals(vertices, faces, length, dilation), expected[name], err_msg=name
        )
