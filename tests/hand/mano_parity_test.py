import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_mano
from m3dhmr_jax.hand.skinning import pose_hand, rotations_from_pose

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def mano(reference):
    return load_mano(reference / "mano" / "MANO_RIGHT.pkl")


def test_pose_hand_matches_published_mano_layer(mano, reference):
    published = np.load(reference / "mano_layer.npz")
    poses = jnp.asarray(published["pose"]).reshape(len(published["pose"]), -1, 3)

    def posed(pose, shape):
        return pose_hand(mano, rotations_from_pose(mano, pose), shape)

    got = jax.jit(jax.vmap(posed))(poses, jnp.asarray(published["betas"]))
    np.testing.assert_allclose(got.verts_m, published["vertices"], atol=1e-5)
    np.testing.assert_allclose(got.skeleton_m, published["joints16"], atol=1e-5)
    np.testing.assert_allclose(got.joints_m, published["joints21_freihand"], atol=1e-5)
    regressed = np.asarray(got.joints_m)[
        :, [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]
    ]
    np.testing.assert_allclose(regressed, published["joints16_regressed"], atol=1e-5)


def test_load_mano_faces_match_published_ones(mano, reference):
    np.testing.assert_array_equal(mano.faces, np.load(reference / "mano" / "right_faces.npy"))


def test_joint_regressor_gives_official_joints(mano, reference):
    folder = reference / "freihand_eval_8" / "ref"
    xyz, verts = (
        np.array(json.loads((folder / f"evaluation_{name}.json").read_text()))
        for name in ("xyz", "verts")
    )
    np.testing.assert_allclose(mano.joint_regressor @ verts, xyz, atol=3e-6)  # Rounded to 1e-6.


def test_regions_are_connected_and_hold_their_fingertip(mano):
    tips = np.asarray(mano.joint_regressor)[[4, 8, 12, 16, 20]].argmax(1)
    assert mano.regions[tips].tolist() == [1, 2, 3, 4, 5]
    for region in range(6):
        inside = np.flatnonzero(mano.regions == region)
        edges = {v: set() for v in inside}
        for face in mano.faces.tolist():
            for a in face:
                if a in edges:
                    edges[a].update(b for b in face if b in edges)
        reached, border = set(), {int(inside[0])}
        while border:
            reached |= border
            border = {b for a in border for b in edges[a]} - reached
        assert reached == set(inside.tolist())
