"""Camera-space placement in JavaScript against that in JAX."""

import numpy as np
import pytest

from m3dhmr_jax.camera.root_recovery import _subsets, recover_roots
from tests.export.observations import draw_joints_m, observe

RECOVER = """
    return argument.map(({ points, landmarks, k }) => place.recoverRoot(points, landmarks, k));
"""


def recover(modules, points_m, landmarks_px, intrinsics):
    rows = [
        {"points": p.ravel().tolist(), "landmarks": uv.ravel().tolist(), "k": k.ravel().tolist()}
        for p, uv, k in zip(*(map(np.float64, (points_m, landmarks_px, intrinsics))), strict=True)
    ]
    found = modules(["place"], RECOVER, rows)
    return (
        np.array([each["tM"] for each in found], float),
        np.array([each["covariance"] for each in found], float).reshape(-1, 3, 3),
        np.array([each["noisePx"] for each in found], float),
    )


@pytest.fixture(scope="module")
def problems():
    """64 hands: exact, noisy, with outliers, and of which little is right."""
    rng = np.random.default_rng(0)
    points_m, columns = [], []
    for kind in (dict(noise=0.0), {}, dict(outliers=5), dict(noise=0.06, outliers=8)):
        joints_m = draw_joints_m(16, rng)
        seen = observe(joints_m, rng, **kind)
        points_m.append(np.float32(joints_m - joints_m[:, :1]))
        columns.append((seen.landmarks_px, seen.intrinsics))
    return np.concatenate(points_m), *map(np.concatenate, zip(*columns, strict=True))


def test_recovered_roots_match_python(modules, problems):
    t_m, covariance_m2, noise_px = recover(modules, *problems)
    want = recover_roots(*problems)
    np.testing.assert_allclose(t_m, want.t_m, atol=1e-4)
    variance = np.trace(np.asarray(want.covariance_m2), axis1=1, axis2=2)[:, None, None]
    np.testing.assert_allclose((covariance_m2 - want.covariance_m2) / variance, 0, atol=1e-3)
    np.testing.assert_allclose(noise_px, want.noise_px, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1e6, -1e12])
def test_degenerate_landmarks_give_finite_roots(modules, problems, value):
    points_m, landmarks_px, intrinsics = (x[:1] for x in problems)
    found = recover(modules, points_m, np.full_like(landmarks_px, value), intrinsics)
    assert all(np.isfinite(x).all() for x in found)
    flat = recover(modules, 0 * points_m, landmarks_px, intrinsics)
    assert all(np.isfinite(x).all() for x in flat)


def test_subsets_are_those_of_python(modules):
    subsets = modules(["subsets"], "return subsets.SUBSETS;")
    rows = [np.isin(np.arange(21), subset) for subset in subsets]
    np.testing.assert_array_equal(rows, _subsets(21).astype(bool))
