import dataclasses

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_details, load_mano
from m3dhmr_jax.math3d import axis_rotation, random_rotation
from m3dhmr_jax.synthetic.kinematics import pose
from m3dhmr_jax.synthetic.transfer import TIP_LANDMARKS, transfer_details

MASKS = ("palmar", "nail", "knuckle", "crease", "tip")
NO_SHAPE = np.zeros(10)
ROTATION = random_rotation(np.random.default_rng(0))


@pytest.fixture(scope="module")
def known():
    return load_details()


def moved(hand, rotation, scale):
    def move(points):
        return (scale * points @ rotation.T + [0.1, -0.2, 0.3]).astype(np.float32)

    return dataclasses.replace(hand, verts_m=move(hand.verts_m), rest_joints=move(hand.rest_joints))


def test_transfer_details_is_equivariant_to_similarity(known):
    hand = moved(load_builtin(), ROTATION, 1.3)
    details = transfer_details(hand, load_builtin(), known)
    np.testing.assert_allclose(details.axes[1:], known.axes[1:] @ ROTATION.T, atol=1e-5)
    np.testing.assert_allclose(details.relaxed, known.relaxed, atol=1e-5)
    for name in MASKS:
        np.testing.assert_allclose(getattr(details, name), getattr(known, name), atol=0.01)


def test_transfer_details_accounts_for_rest_pose(known):
    hand = load_builtin()
    rotations = np.tile(np.eye(3), (16, 1, 1))
    for joint in range(1, 16):
        rotations[joint] = axis_rotation(known.axes[joint, 0], np.radians(8.0))
    bent = pose(hand, rotations, NO_SHAPE)
    other = dataclasses.replace(hand, verts_m=bent.verts_m, rest_joints=bent.skeleton_m)
    details = transfer_details(other, hand, known)
    back = pose(other, details.relaxed, NO_SHAPE)
    np.testing.assert_allclose(back.skeleton_m, hand.rest_joints, atol=1e-4)
    assert np.linalg.norm(back.verts_m - hand.verts_m, axis=1).mean() < 0.001
    for name in MASKS:
        agreement = np.corrcoef(getattr(details, name), getattr(known, name))[0, 1]
        assert agreement > 0.97, name


@pytest.fixture(scope="module")
def mano(reference):
    return load_mano(reference / "mano" / "MANO_RIGHT.pkl")


@pytest.mark.parity
def test_transfer_details_flexes_mano_towards_palm(mano, known):
    details = transfer_details(mano, load_builtin(), known)
    np.testing.assert_allclose(np.linalg.norm(details.axes, axis=2), 1, atol=1e-4)
    relaxed = pose(mano, details.relaxed, NO_SHAPE)
    for joint, landmark in TIP_LANDMARKS.items():
        rotations = details.relaxed.copy()
        for bone in range(joint - 2, joint + 1):
            rotations[bone] = rotations[bone] @ axis_rotation(details.axes[bone, 0], np.radians(25))
        bent = pose(mano, rotations, NO_SHAPE)
        palm = relaxed.verts_m[mano.regions == 0].mean(axis=0) + np.array([0, -0.03, 0])
        before, after = (
            np.linalg.norm(mano.joint_regressor[landmark] @ posed.verts_m - palm)
            for posed in (relaxed, bent)
        )
        assert after < before - 0.01


@pytest.mark.parity
def test_transfer_details_puts_nails_on_mano_fingertips(mano, known):
    details = transfer_details(mano, load_builtin(), known)
    nails = details.nail > 0.5
    assert set(mano.regions[nails]) == {1, 2, 3, 4, 5}
    assert details.palmar[nails].max() < 0.5
    assert set(mano.skin_weights[nails].argmax(1)) == set(TIP_LANDMARKS)
