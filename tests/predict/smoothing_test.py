import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.predict.smoothing import HandSmoother, one_euro


def filtered(values, rate_hz=30.0, min_cutoff_hz=1.5, beta=20.0):
    state, out = None, []
    for value in values:
        state = one_euro(state, value, 1 / rate_hz, min_cutoff_hz, beta)
        out.append(state.points)
    return np.array(out)


def test_one_euro_reduces_jitter_at_rest():
    noise = np.random.default_rng(0).normal(scale=0.002, size=(300, 5, 3))
    assert filtered(noise)[30:].std() < 0.5 * noise.std()


def test_one_euro_keeps_a_constant_and_follows_a_step():
    np.testing.assert_array_equal(filtered(np.full((9, 1, 3), 0.3)), 0.3)
    step = np.concatenate([np.zeros((5, 1, 3)), np.ones((60, 1, 3))])
    out = filtered(step)
    assert (np.diff(out[:, 0, 0]) >= 0).all()
    np.testing.assert_allclose(out[-1], 1, atol=1e-3)


def test_one_euro_lags_less_than_a_fixed_cutoff():
    ramp = np.linspace(0, 1, 60)[:, None, None] * np.array([0.0, 1.0, 0.0])
    assert np.abs(filtered(ramp) - ramp)[-1].max() < 0.015
    assert np.abs(filtered(ramp, beta=0.0) - ramp)[-1].max() > 0.03


def test_one_euro_matches_the_paper():
    """For one number, written out."""
    a, b, dt = 0.2, 0.5, 0.1
    rate = 2 * np.pi * 1.0 * dt
    velocity = rate / (1 + rate) * (b - a) / dt
    rate = 2 * np.pi * (1.5 + 20 * velocity) * dt
    want = a + rate / (1 + rate) * (b - a)
    np.testing.assert_allclose(filtered(np.array([[[a]], [[b]]]), 10.0)[-1, 0, 0], want)


@pytest.fixture
def hands():
    hand, rng = load_builtin(), np.random.default_rng(0)
    verts_m = hand.verts_m + np.array([[[0, 0, 0.5]], [[0.1, 0, 0.7]]])
    joints_m = hand.joint_regressor @ verts_m
    return PredictedHands(
        verts_m=verts_m.astype(np.float32),
        joints_m=joints_m.astype(np.float32),
        landmarks_px=rng.uniform(100, 300, (2, 21, 2)).astype(np.float32),
        root_m=joints_m[:, 0].astype(np.float32),
        root_covariance_m2=np.zeros((2, 3, 3), np.float32),
        noise_px=np.ones(2, np.float32),
        faces=np.stack([hand.faces, hand.faces[:, ::-1]]),
        handedness=("right", "left"),
        handedness_probability=np.full(2, np.nan),
        score=np.ones(2),
        is_unsure=np.zeros(2, bool),
        crop_px=np.array([[90.0, 90, 220, 220]] * 2),
        direction_rad=np.zeros(2),
        track=np.arange(2),
        intrinsics=np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]),
        camera_is_assumed=True,
        method="network",
        pose=None,
    )


def noisy(hands, rng):
    shift = rng.normal(scale=0.003, size=(2, 1, 3)).astype(np.float32)
    verts_m = hands.verts_m + shift + rng.normal(scale=0.001, size=(2, 778, 3)).astype(np.float32)
    joints_m = np.einsum("nv,kvc->knc", load_builtin().joint_regressor, verts_m).astype(np.float32)
    landmarks_px = hands.landmarks_px + rng.normal(scale=2, size=(2, 21, 2)).astype(np.float32)
    return hands._replace(
        verts_m=verts_m, joints_m=joints_m, root_m=joints_m[:, 0], landmarks_px=landmarks_px
    )


def test_smoother_reduces_jitter_and_keeps_joints_on_the_mesh(hands):
    smooth, rng = HandSmoother(load_builtin().joint_regressor), np.random.default_rng(1)
    raw = [noisy(hands, rng) for _ in range(120)]
    out = [smooth(each, i / 30) for i, each in enumerate(raw)]
    for name in ("root_m", "verts_m", "landmarks_px"):
        before, after = (
            np.std([getattr(h, name) for h in rows[30:]], axis=0).mean() for rows in (raw, out)
        )
        assert after < 0.7 * before, name
    regressor = load_builtin().joint_regressor
    np.testing.assert_allclose(
        np.einsum("nv,kvc->knc", regressor, out[-1].verts_m), out[-1].joints_m, atol=1e-5
    )


def moved(hands, shift_m=1.0):
    shifted = np.float32(shift_m)
    return hands._replace(verts_m=hands.verts_m + shifted, root_m=hands.root_m + shifted)


def test_smoother_restarts_with_earlier_times_and_hands_that_were_gone(hands):
    smooth = HandSmoother(load_builtin().joint_regressor)
    smooth(hands, 0.0)
    np.testing.assert_allclose(smooth(moved(hands), 0.0).root_m, moved(hands).root_m, atol=1e-5)
    none = hands.take([])
    assert smooth(none, 0.2).verts_m.shape == (0, 778, 3)
    np.testing.assert_allclose(smooth(hands, 0.3).verts_m, hands.verts_m, atol=1e-6)


def test_smoother_filters_each_hand_by_its_number(hands):
    """Whatever its row is, and whether others come and go."""
    smooth = HandSmoother(load_builtin().joint_regressor)
    smooth(hands, 0.0)
    first, second = hands.take([0]), hands.take([1])
    alone = smooth(moved(second, 0.01), 1 / 30)
    step_m = alone.root_m - second.root_m
    assert (step_m > 0.001).all()
    assert (step_m < 0.009).all()
    both = smooth(hands.take([1, 0]), 2 / 30)
    assert (np.abs(both.root_m[0] - second.root_m[0]) > 1e-4).all()  # It is still filtered.
    np.testing.assert_allclose(both.root_m[1], first.root_m[0], atol=1e-6)  # It starts anew.
