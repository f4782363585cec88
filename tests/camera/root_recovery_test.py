import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.camera import pinhole, root_recovery
from m3dhmr_jax.camera.root_recovery import Silhouette, recover_root, recover_roots
from m3dhmr_jax.camera.silhouette import DIRECTIONS, Reach, mask_reach, mesh_reach_px
from m3dhmr_jax.hand import load_builtin

T_M = np.array([0.06, -0.03, 0.7], np.float32)
K = np.array([[480.0, 0, 112], [0, 470, 110], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def hand():
    """The built-in hand about its wrist: landmarks and vertices."""
    model = load_builtin()
    joints = model.joint_regressor @ model.verts_m
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    points, verts = ((x - joints[:1]) @ turn for x in (joints, model.verts_m))
    return points.astype(np.float32), verts.astype(np.float32)


@pytest.fixture(scope="module")
def points(hand):
    return hand[0]


@pytest.fixture(scope="module")
def fit():
    """Compiled once."""
    return jax.jit(recover_root)


def seen(points, t_m=T_M, noise_px=0.0, seed=0):
    noise = noise_px * np.random.default_rng(seed).normal(size=(len(points), 2))
    return np.asarray(pinhole.project(points + t_m, K)) + noise.astype(np.float32)


def depth_deviation_m(root):
    return float(jnp.sqrt(root.covariance_m2[2, 2]))


@pytest.mark.parametrize("t_m", [(0.0, 0.0, 0.3), (0.2, -0.1, 0.6), (-0.4, 0.3, 1.2)])
def test_translation_is_recovered_without_noise(points, fit, t_m):
    root = fit(points, seen(points, np.array(t_m, np.float32)), K)
    np.testing.assert_allclose(root.t_m, t_m, atol=5e-6)
    assert float(root.inlier_probability.min()) > 0.99
    assert depth_deviation_m(root) < 1e-3


@pytest.mark.parametrize("wrong", [[3], [0, 9], [1, 6, 11, 14, 20], [5, 6, 7, 8], range(0, 21, 3)])
def test_wrong_landmarks_are_found_and_do_not_matter(points, fit, wrong):
    """Up to seven of 21, each anywhere or together, as a finger taken for another."""
    landmarks_px, wrong = seen(points), list(wrong)
    shift = 40 * np.random.default_rng(2).normal(size=(21, 2)).astype(np.float32)
    landmarks_px[wrong] += np.float32([35, -20]) if len(wrong) == 4 else shift[wrong]
    root = fit(points, landmarks_px, K)
    np.testing.assert_allclose(root.t_m, T_M, atol=2e-5)
    is_wrong = np.isin(np.arange(21), wrong)
    np.testing.assert_array_equal(np.asarray(root.inlier_probability) < 0.5, is_wrong)


def test_a_noisy_fit_with_wrong_landmarks_is_the_fit_to_the_others(points, fit):
    landmarks_px = seen(points, noise_px=1.0)
    landmarks_px[[2, 8, 17]] += 50
    root = fit(points, landmarks_px, K)
    good = np.delete(np.arange(21), [2, 8, 17])

    def error(t_m):
        return jnp.sum((pinhole.project(points[good] + t_m[None], K) - landmarks_px[good]) ** 2)

    for nudge in 0.0005 * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32):
        assert error(root.t_m + nudge) > error(root.t_m)
    assert 0.6 < float(root.noise_px) < 1.5


def test_the_answer_moves_smoothly_while_a_landmark_goes_astray_and_comes_back(points, fit):
    """It loses its weight step by step, and regains it."""
    landmarks_px = seen(points, noise_px=1.0)
    away_px = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, -0.1, -0.5)])
    roots = []
    for px in away_px:
        moved = landmarks_px.copy()
        moved[12] += np.float32([0.6, 0.8]) * np.float32(px)
        roots.append(fit(points, moved, K))
    t_m = np.array([root.t_m for root in roots])
    good = np.array([root.inlier_probability[12] for root in roots])
    farthest = int(np.argmax(away_px))
    assert good[0] > 0.9
    assert good[farthest] < 1e-3
    np.testing.assert_array_equal(t_m, t_m[::-1])
    sure_m = max(depth_deviation_m(root) for root in roots)
    assert np.linalg.norm(np.diff(t_m, axis=0), axis=1).max() < sure_m
    assert np.linalg.norm(t_m[farthest] - t_m[0]) < 0.01


def test_the_fit_is_the_same_in_a_crop_and_at_any_scale_of_pixels(points, fit):
    landmarks_px = seen(points, noise_px=1.0)
    landmarks_px[4] += 60
    root = fit(points, landmarks_px, K)
    crop = np.array([[2.1, 0.9, 30.0], [-0.9, 2.1, -12.0]], np.float32)
    turned = fit(points, pinhole.apply_affine(landmarks_px, crop), pinhole.crop_intrinsics(K, crop))
    np.testing.assert_allclose(turned.t_m, root.t_m, atol=2e-5)
    np.testing.assert_allclose(turned.inlier_probability, root.inlier_probability, atol=1e-3)
    np.testing.assert_allclose(turned.noise_px, np.hypot(2.1, 0.9) * root.noise_px, rtol=1e-2)
    np.testing.assert_allclose(turned.covariance_m2, root.covariance_m2, rtol=0.02, atol=1e-8)


def test_the_fit_follows_the_origin_of_the_points(points, fit):
    landmarks_px = seen(points, noise_px=1.0)
    shift = np.array([0.02, 0.01, -0.03], np.float32)
    moved = fit(points + shift, landmarks_px, K)
    np.testing.assert_allclose(moved.t_m, fit(points, landmarks_px, K).t_m - shift, atol=2e-5)


def test_the_covariance_is_that_of_the_errors(points):
    """Over 300 draws of noise, with and without wrong landmarks."""
    rng = np.random.default_rng(3)
    landmarks_px = np.stack([seen(points, noise_px=1.5, seed=s) for s in range(300)])
    landmarks_px[150:, [3, 10, 13]] += 30 * rng.normal(size=(150, 3, 2)).astype(np.float32)
    roots = recover_roots(np.stack([points] * 300), landmarks_px, np.stack([K] * 300))
    off_m = np.asarray(roots.t_m) - T_M
    squared = np.einsum("bi,bij,bj->b", off_m, np.linalg.inv(roots.covariance_m2), off_m)
    for half in (squared[:150], squared[150:]):
        assert 3 / 1.4 < half.mean() < 3 * 1.4  # Chi squared of three degrees of freedom.
    np.testing.assert_allclose(np.median(roots.noise_px), 1.5, rtol=0.1)


def test_wrong_landmarks_all_over_leave_it_finite_and_unsure(points, fit):
    wild = 300 * np.random.default_rng(4).normal(size=(21, 2)).astype(np.float32) + 112
    one_place = np.full((21, 2), 50, np.float32)
    mirrored = 220 - seen(points)
    sure = depth_deviation_m(fit(points, seen(points, noise_px=1.0), K))
    for landmarks_px in (wild, one_place, mirrored):
        root = fit(points, landmarks_px, K)
        assert all(jnp.isfinite(leaf).all() for leaf in root)
        assert (points[:, 2] + root.t_m[2]).min() > 0.99 * root_recovery.NEAREST_M
        assert depth_deviation_m(root) > 5 * sure


@pytest.mark.parametrize("spread_px", [0.0, 1e-3, 1e-2, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0])
def test_landmarks_that_fit_no_hand_leave_it_in_finite_reach(fit, spread_px, size):
    """As an untrained network answers: all in one spot, or anywhere."""
    rng = np.random.default_rng(0)
    points = (0.04 * size * rng.normal(size=(21, 3))).astype(np.float32)
    landmarks_px = (112 + spread_px * rng.normal(size=(21, 2))).astype(np.float32)
    root = fit(points, landmarks_px, K)
    assert all(jnp.isfinite(leaf).all() for leaf in root)
    assert 0 < root.t_m[2] <= root_recovery.FARTHEST_M
    assert (jnp.diagonal(root.covariance_m2) > 0).all()


def test_gradient_of_the_fit_is_finite_and_right(points, fit):
    landmarks_px = seen(points, noise_px=1.0)
    landmarks_px[7] += 40

    @jax.jit
    def depth(landmarks_px):
        return recover_root(points, landmarks_px, K).t_m[2]

    slope = jax.grad(depth)(landmarks_px)
    assert jnp.isfinite(slope).all()
    along = landmarks_px - landmarks_px.mean(axis=0, keepdims=True)
    along[7] = 0
    want = (depth(landmarks_px + 0.02 * along) - depth(landmarks_px - 0.02 * along)) / 0.04
    np.testing.assert_allclose(jnp.sum(slope * along), want, rtol=1e-2)
    assert jnp.isfinite(jax.grad(depth)(np.full((21, 2), 50, np.float32))).all()


@pytest.mark.parametrize("weighting", [[1.0] * 21, [0.0] * 10 + [1.0] * 11, [0.5, 2.0, 0.1] * 7])
def test_linear_solutions_are_exact_without_noise(points, weighting):
    rays = (points + T_M)[:, :2] / (points + T_M)[:, 2:]
    weights = jnp.stack([jnp.array(weighting), jnp.ones(21)])
    got = root_recovery.linear_translations(jnp.asarray(points), jnp.asarray(rays), weights)
    np.testing.assert_allclose(got, np.stack([T_M] * 2), atol=1e-5)


@pytest.fixture(scope="module")
def fit_both():
    return jax.jit(recover_root)


def reach_of(verts, t_m=T_M):
    reach_px = np.round(np.asarray(mesh_reach_px(verts, jnp.asarray(t_m), K)))
    return Reach(reach_px, np.ones(len(DIRECTIONS), bool))


@pytest.mark.parametrize("scale", [0.9, 1.12])
def test_a_silhouette_corrects_landmarks_of_the_wrong_size(hand, fit, fit_both, scale):
    points, verts = hand
    landmarks_px = seen(points, noise_px=0.5)
    middle = landmarks_px.mean(axis=0)
    landmarks_px = middle + np.float32(scale) * (landmarks_px - middle)
    alone = fit(points, landmarks_px, K)
    both = fit_both(points, landmarks_px, K, Silhouette(verts, reach_of(verts)))
    assert np.linalg.norm(alone.t_m - T_M) > 0.05
    off_m = np.linalg.norm(both.t_m - T_M)
    assert off_m < 0.006
    assert off_m < 3 * depth_deviation_m(both)


def test_directions_that_are_not_seen_or_wrong_do_not_matter(hand, fit_both):
    """A hand cut by the border, and a sleeve that the mask takes for a hand."""
    points, verts = hand
    landmarks_px = seen(points, noise_px=0.5)
    reach = reach_of(verts)
    whole = fit_both(points, landmarks_px, K, Silhouette(verts, reach))
    cut = Reach(np.where(np.arange(24) < 5, 0, reach.px), np.arange(24) >= 5)
    sleeve = Reach(reach.px + np.where(np.arange(24) < 4, 25, 0).astype(np.float32), reach.is_seen)
    for other in (cut, sleeve):
        root = fit_both(points, landmarks_px, K, Silhouette(verts, other))
        np.testing.assert_allclose(root.t_m, whole.t_m, atol=0.004)


def test_an_outline_that_is_too_wide_all_round_is_within_the_deviation(hand, fit_both):
    """As a mask is that counts every pixel that it touches."""
    points, verts = hand
    reach = reach_of(verts)
    wide = Reach(reach.px + np.float32(0.4), reach.is_seen)
    root = fit_both(points, seen(points, noise_px=0.5), K, Silhouette(verts, wide))
    assert np.linalg.norm(root.t_m - T_M) < 2.5 * depth_deviation_m(root)


def test_an_empty_silhouette_leaves_the_landmarks_answer(hand, fit, fit_both):
    points, verts = hand
    landmarks_px = seen(points, noise_px=0.5)
    nothing = mask_reach(np.zeros((224, 224), bool))
    alone, both = (
        fit(points, landmarks_px, K),
        fit_both(points, landmarks_px, K, Silhouette(verts, nothing)),
    )
    np.testing.assert_allclose(both.t_m, alone.t_m, atol=0.02)
    assert depth_deviation_m(both) > 5 * depth_deviation_m(alone)


def errors_mm(t_m, true_m):
    off_mm = 1000 * np.linalg.norm(np.asarray(t_m) - true_m, axis=1)
    return np.median(off_mm), np.percentile(off_mm, 95)


def arrays(problems, prefix=""):
    names = ("joints_rel", "uv", "K")
    return [np.asarray(problems[f"{prefix}{name}"], np.float32) for name in names]


@pytest.mark.parity
def test_recorded_problems_are_solved_better_than_by_the_peer(reference):
    """Nearly as if it were known which landmarks are wrong."""
    problems = np.load(reference / "registration.npz")
    roots = recover_roots(*arrays(problems))
    ours, peer, oracle = (
        errors_mm(t_m, problems["t_true"])
        for t_m in (roots.t_m, problems["ref_t"], problems["t_ls_inliers"])
    )
    for ours_mm, peer_mm, oracle_mm in zip(ours, peer, oracle, strict=True):
        assert ours_mm < peer_mm
        assert ours_mm < 1.25 * oracle_mm + 0.1
    wrong = problems["outlier_mask"]
    good = np.asarray(roots.inlier_probability)
    assert (good[wrong] > 0.5).mean() < 0.02
    assert (good[~wrong] < 0.5).mean() < 0.02


@pytest.mark.parity
def test_recorded_silhouettes_are_used_better_than_by_the_peer(reference):
    problems = np.load(reference / "registration.npz")
    masks = np.unpackbits(problems["poly_mask"], axis=-1).astype(bool)
    silhouette = Silhouette(problems["poly_verts_rel"], jax.jit(jax.vmap(mask_reach))(masks))
    roots = recover_roots(*arrays(problems, "poly_"), silhouette)
    ours, peer = (
        errors_mm(t_m, problems["poly_t_true"]) for t_m in (roots.t_m, problems["poly_ref_t"])
    )
    assert ours[0] < peer[0]
    assert ours[1] < peer[1]
