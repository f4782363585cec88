import re

import numpy as np
import pytest

from m3dhmr_jax.mesh.spirals import spirals


@pytest.mark.parity
def test_every_array_of_the_peer_is_reproduced(reference):
    meshes = np.load(reference / "mesh_hierarchy.npz")
    peer = np.load(reference / "spirals.npz")
    assert peer.files
    for name in peer.files:
        match = re.fullmatch(r"spiral_l(\d+)_seq(\d+)_dil(\d+)", name)
        assert match, name
        level, length, dilation = map(int, match.groups())
        vertices, faces = meshes[f"vertices_{level}"], meshes[f"faces_{level}"]
        np.testing.assert_array_equal(
            spirals(vertices, faces, length, dilation), peer[name], err_msg=name
        )
