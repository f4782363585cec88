import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import load_mano, pose_hand, rotations_from_pose

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def mano(reference):
    return load_mano(reference / "mano" / "MANO_RIGHT.pkl")


def test_posed_mano_matches_the_peer(mano, reference):
    peer = np.load(reference / "mano_layer.npz")
    poses = jnp.asarray(peer["pose"]).reshape(len(peer["pose"]), -1, 3)

    def posed(pose, shape):
        return pose_hand(mano, rotations_from_pose(mano, pose), shape)

    got = jax.jit(jax.vmap(posed))(poses, jnp.asarray(peer["betas"]))
    np.testing.assert_allclose(got.verts_m, peer["vertices"], atol=1e-5)
    np.testing.assert_allclose(got.skeleton_m, peer["joints16"], atol=1e-5)
    np.testing.assert_allclose(got.joints_m, peer["joints21_freihand"], atol=1e-5)
    regressed = np.asarray(got.joints_m)[
        :, [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]
    ]
    np.testing.assert_allclose(regressed, peer["joints16_regressed"], atol=1e-5)


def test_faces_are_the_peers(mano, reference):
    np.testing.assert_array_equal(mano.faces, np.load(reference / "mano" / "right_faces.npy"))


def test_landmarks_of_official_labels(mano, reference):
    folder = reference / "freihand_eval_8" / "ref"
    xyz, verts = (
        np.array(json.loads((folder / f"evaluation_{name}.json").read_text()))
        for name in ("xyz", "verts")
    )
    np.testing.assert_allclose(mano.joint_regressor @ verts, xyz, atol=3e-6)  # Rounded to 1e-6.


def test_every_region_is_one_piece_with_its_own_fingertip(mano):
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
