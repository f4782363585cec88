import numpy as np

from m3dhmr_jax.evaluate.focal_noise import FOCAL_NOISE, disturbed, errors_with_perturbed_focal
from m3dhmr_jax.inference import CameraHands

K = np.array([[450, 2, 112], [0, 455, 110], [0, 0, 1]], np.float32)


def factors(index):
    return np.asarray(disturbed(np.stack([K] * len(index)), np.array(index)))[:, 0, 0] / 450


def true_answer(batch):
    """An answer without error."""
    seen = batch.joints_m @ batch.intrinsics.transpose(0, 2, 1)
    return CameraHands(
        seen[..., :2] / seen[..., 2:],
        batch.joints_m,
        batch.verts_m,
        np.zeros((4, 3, 3)),
        np.zeros(4),
    )


def test_both_focal_lengths_change_alike_and_the_principal_point_stays():
    moved = np.asarray(disturbed(K[None], np.array([5])))[0]
    factor = moved[0, 0] / 450
    assert abs(np.log(factor)) > 1e-4
    np.testing.assert_allclose(moved[:2, :2], factor * K[:2, :2], rtol=1e-6)
    np.testing.assert_array_equal(moved[:, 2], K[:, 2])


def test_the_noise_of_a_photo_is_its_own_in_any_batch():
    together = factors([3, 7, 8])
    np.testing.assert_array_equal(together[1], factors([7])[0])
    assert len(set(together.tolist())) == 3


def test_the_noise_has_the_size_that_is_stated():
    logs = np.log(factors(list(range(4000))))
    assert abs(logs.mean()) < 4 * FOCAL_NOISE / np.sqrt(4000)
    np.testing.assert_allclose(logs.std(), FOCAL_NOISE, rtol=0.05)


def test_a_true_answer_moves_in_depth_as_much_as_its_focal_length_is_off(hand_batch):
    """Depth is proportional to the focal length; the rest of the hand moves with the wrist."""
    errors = errors_with_perturbed_focal(true_answer(hand_batch), hand_batch)
    off = np.abs(factors(hand_batch.index.tolist()) - 1) * hand_batch.joints_m[:, 0, 2]
    np.testing.assert_allclose(errors.joints_m[:, 0], off, rtol=0.1, atol=1e-3)
    spread = np.ptp(np.asarray(errors.mesh_m), axis=1)
    assert (spread < 1e-4).all()  # Moved, not bent.


def test_without_noise_the_answer_stays_where_it_was(hand_batch, monkeypatch):
    monkeypatch.setattr("m3dhmr_jax.evaluate.focal_noise.FOCAL_NOISE", 0.0)
    errors = errors_with_perturbed_focal.__wrapped__(true_answer(hand_batch), hand_batch)
    assert np.asarray(errors.mesh_m).max() < 1e-4
