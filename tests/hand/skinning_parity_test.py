import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.hand import HandModel, articulation, pose_hand

FREIHAND_FROM_MANO = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]
TIP_VERTICES = [744, 320, 443, 555, 672]  # Thumb to little.
REGION_OF_JOINT = np.array([0] + [2] * 3 + [3] * 3 + [5] * 3 + [4] * 3 + [1] * 3)


@pytest.fixture(scope="module")
def mano(reference):
    with (reference / "mano" / "MANO_RIGHT.pkl").open("rb") as file:
        data = pickle.load(file)
    joints_from = data["J_regressor"]
    landmarks_from = np.concatenate([joints_from, np.eye(778)[TIP_VERTICES]])[FREIHAND_FROM_MANO]
    parents = data["kintree_table"][0].astype(np.int64)
    parents[0] = -1
    shape_basis = data["shapedirs"].transpose(2, 0, 1)
    return HandModel(
        vertices=data["v_template"],
        faces=data["f"].astype(np.int32),
        rest_joints=joints_from @ data["v_template"],
        parents=parents,
        skin_weights=data["weights"],
        joint_regressor=landmarks_from,
        regions=REGION_OF_JOINT[data["weights"].argmax(1)],
        shape_basis=shape_basis,
        joint_shape_basis=np.einsum("jv,pva->pja", joints_from, shape_basis),
        pose_basis=data["posedirs"].transpose(2, 0, 1),
        pose_mean=data["hands_mean"].reshape(15, 3),
    )


@pytest.mark.parity
def test_posed_mano_matches_the_peer(mano, reference):
    peer = np.load(reference / "mano_layer.npz")
    poses = jnp.asarray(peer["pose"]).reshape(len(peer["pose"]), -1, 3)

    def posed(pose, shape):
        return pose_hand(mano, articulation(mano, pose), shape)

    got = jax.jit(jax.vmap(posed))(poses, jnp.asarray(peer["betas"]))
    np.testing.assert_allclose(got.vertices, peer["vertices"], atol=1e-5)
    np.testing.assert_allclose(got.joints, peer["joints16"], atol=1e-5)
    np.testing.assert_allclose(got.landmarks, peer["joints21_freihand"], atol=1e-5)
