import numpy as np

from m3dhmr_jax.evaluate.focal_noise import (
    FOCAL_NOISE,
    errors_with_perturbed_focal,
    perturb_focal,
)
from m3dhmr_jax.types import CameraHands

K = np.array([[450, 2, 112], [0, 455, 110], [0, 0, 1]], np.float32)


def factors(index):
    return np.asarray(perturb_focal(np.stack([K] * len(index)), np.array(index)))[:, 0, 0] / 450


def perfect_prediction(batch):
    projected = batch.joints_m @ batch.intrinsics.transpose(0, 2, 1)
    return CameraHands(
        projected[..., :2] / projected[..., 2:],
        batch.joints_m,
        batch.verts_m,
        np.zeros((4, 3, 3)),
        np.zeros(4),
    )


def test_perturb_focal_keeps_aspect_and_principal_point():
    moved = np.asarray(perturb_focal(K[None], np.array([5])))[0]
    factor = moved[0, 0] / 450
    assert abs(np.log(factor)) > 1e-4
    np.testing.assert_allclose(moved[:2, :2], factor * K[:2, :2], rtol=1e-6)
    np.testing.assert_array_equal(moved[:, 2], K[:, 2])


def test_perturb_focal_depends_on_index_only():
    together = factors([3, 7, 8])
    np.testing.assert_array_equal(together[1], factors([7])[0])
    assert len(set(together.tolist())) == 3


def test_perturb_focal_has_stated_deviation():
    logs = np.log(factors(list(range(4000))))
    assert abs(logs.mean()) < 4 * FOCAL_NOISE / np.sqrt(4000)
    np.testing.assert_allclose(logs.std(), FOCAL_NOISE, rtol=0.05)


def test_perturbed_focal_moves_depth_in_proportion(hand_batch):
    """Depth is proportional to the focal length; the rest of the hand moves with the wrist."""
    errors = errors_with_perturbed_focal(perfect_prediction(hand_batch), hand_batch)
    expected_m = np.abs(factors(hand_batch.index.tolist()) - 1) * hand_batch.joints_m[:, 0, 2]
    np.testing.assert_allclose(errors.joint_errors_m[:, 0], expected_m, rtol=0.1, atol=1e-3)
    spread = np.ptp(np.asarray(errors.vert_errors_m), axis=1)
    assert (spread < 1e-4).all()  # Moved, not bent.


def test_no_noise_gives_no_error(hand_batch, monkeypatch):
    monkeypatch.setattr("m3dhmr_jax.evaluate.focal_noise.FOCAL_NOISE", 0.0)
    errors = errors_with_perturbed_focal.__wrapped__(perfect_prediction(hand_batch), hand_batch)
    assert np.asarray(errors.vert_errors_m).max() < 1e-4
