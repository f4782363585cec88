import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics import baselines
from m3dhmr_jax.metrics.baselines import constant_error_fn, mean_hand
from m3dhmr_jax.metrics.freihand import scores


@pytest.fixture(scope="module")
def hand():
    return load_builtin()


def relative(batch):
    return batch.verts_m - batch.joints_m[:, :1]


def rows(batch, chosen):
    return type(batch)(*(leaf[chosen] for leaf in batch))


def test_the_true_mesh_as_a_constant_scores_zero(hand_batch, hand):
    one = rows(hand_batch, slice(2, 3))
    result = scores(constant_error_fn(relative(one)[0], hand)(one))
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "pa_mpvpe_mm"):
        assert result[name] < 0.01, name
    assert result["f_5"] == 1
    assert result["xyz_mean3d"] < 1e-5


def test_a_constant_is_put_at_each_true_root(hand_batch, hand):
    """The first mesh for all four: right for the first, its own shape's errors for the others."""
    samples = constant_error_fn(relative(hand_batch)[0], hand)(hand_batch)
    off = np.linalg.norm(relative(hand_batch) - relative(hand_batch)[:1], axis=-1)
    np.testing.assert_allclose(samples.vert_errors_m, off, atol=1e-5)
    np.testing.assert_allclose(samples.joint_errors_rel_m, samples.joint_errors_m, atol=1e-5)


def test_the_mean_hand_has_the_shape_that_all_share(hand_batch, hand):
    """Turned copies of one hand: their Procrustes mean is that hand, up to a similarity."""
    mean = mean_hand(hand_batch.verts_m, hand)
    result = scores(constant_error_fn(mean.astype(np.float32), hand)(hand_batch))
    assert result["pa_mpvpe_mm"] < 0.05
    np.testing.assert_allclose(hand.joint_regressor[0] @ mean, 0, atol=1e-5)


def test_the_mean_hand_is_a_better_guess_than_its_neighbours(hand_batch, hand):
    """Best in least squares among turned and scaled copies about the wrist."""
    mean = mean_hand(hand_batch.verts_m, hand)

    def cost(guess):
        return np.sum((relative(hand_batch) - guess) ** 2)

    turn = np.array([[np.cos(0.05), -np.sin(0.05), 0], [np.sin(0.05), np.cos(0.05), 0], [0, 0, 1]])
    for other in (1.03 * mean, 0.97 * mean, mean @ turn, mean @ turn.T):
        assert cost(mean) < cost(other)


def test_training_labels_are_spread_over_the_set(monkeypatch, tmp_path):
    hands = [{"verts": np.full((778, 3), i), "K": np.full((3, 3), -i)} for i in range(100)]
    monkeypatch.setattr(baselines.loader, "open_split", lambda data, split: hands)
    monkeypatch.setattr(baselines, "MEAN_OF", 5)
    verts, intrinsics = baselines.training_labels(tmp_path, "verts", "K")
    np.testing.assert_array_equal(verts[:, 0, 0], [0, 24, 49, 74, 99])
    np.testing.assert_array_equal(intrinsics[:, 0, 0], [0, -24, -49, -74, -99])


def test_mean_landmarks_are_off_by_what_they_are_off(monkeypatch, tmp_path, hand_batch):
    """Two hands, one 8 px right of the other in the photo: the mean is 4 px from both."""
    one = rows(hand_batch, slice(0, 1))
    moved = one.intrinsics + np.float32([[0, 0, 8], [0, 0, 0], [0, 0, 0]])
    hands = [{"xyz": one.joints_m[0], "K": k} for k in (one.intrinsics[0], moved[0])]
    monkeypatch.setattr(baselines.loader, "open_split", lambda data, split: hands)
    errors_px = baselines.mean_landmark_error_fn(tmp_path)(one)
    np.testing.assert_allclose(errors_px, np.full((1, 21), 4.0), atol=1e-3)
