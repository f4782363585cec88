import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.camera import pinhole, root_recovery
from m3dhmr_jax.camera.mesh_extent import mesh_extent_px
from m3dhmr_jax.camera.root_recovery import Silhouette, recover_root, recover_roots
from m3dhmr_jax.camera.silhouette import DIRECTIONS, NO_EXTENT, SilhouetteExtent, silhouette_extent
from m3dhmr_jax.hand import load_builtin

T_M = np.array([0.06, -0.03, 0.7], np.float32)
K = np.array([[480.0, 0, 112], [0, 470, 110], [0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def hand():
    """The built-in hand relative to its wrist: joints and vertices."""
    model = load_builtin()
    joints = model.joint_regressor @ model.verts_m
    rotation = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    points, verts = ((x - joints[:1]) @ rotation for x in (joints, model.verts_m))
    return points.astype(np.float32), verts.astype(np.float32)


@pytest.fixture(scope="module")
def points(hand):
    return hand[0]


@pytest.fixture(scope="module")
def fit():
    """Compiled once."""
    return jax.jit(recover_root)


def project_noisy(points, t_m=T_M, noise_px=0.0, seed=0):
    noise = noise_px * np.random.default_rng(seed).normal(size=(len(points), 2))
    return np.asarray(pinhole.project(points + t_m, K)) + noise.astype(np.float32)


def depth_deviation_m(root):
    return float(jnp.sqrt(root.covariance_m2[2, 2]))


@pytest.mark.parametrize("t_m", [(0.0, 0.0, 0.3), (0.2, -0.1, 0.6), (-0.4, 0.3, 1.2)])
def test_recover_root_is_exact_without_noise(points, fit, t_m):
    root = fit(points, project_noisy(points, np.array(t_m, np.float32)), K)
    np.testing.assert_allclose(root.t_m, t_m, atol=5e-6)
    assert float(root.inlier_probability.min()) > 0.99
    assert depth_deviation_m(root) < 1e-3


@pytest.mark.parametrize(
    "outliers", [[3], [0, 9], [1, 6, 11, 14, 20], [5, 6, 7, 8], range(0, 21, 3)]
)
def test_recover_root_rejects_outliers(points, fit, outliers):
    """Up to seven of 21, independent or together, as when one finger is mistaken for another."""
    landmarks_px, outliers = project_noisy(points), list(outliers)
    shift = 40 * np.random.default_rng(2).normal(size=(21, 2)).astype(np.float32)
    landmarks_px[outliers] += np.float32([35, -20]) if len(outliers) == 4 else shift[outliers]
    root = fit(points, landmarks_px, K)
    np.testing.assert_allclose(root.t_m, T_M, atol=2e-5)
    is_outlier = np.isin(np.arange(21), outliers)
    np.testing.assert_array_equal(np.asarray(root.inlier_probability) < 0.5, is_outlier)


def test_recover_root_minimises_the_error_of_inliers(points, fit):
    landmarks_px = project_noisy(points, noise_px=1.0)
    landmarks_px[[2, 8, 17]] += 50
    root = fit(points, landmarks_px, K)
    inliers = np.delete(np.arange(21), [2, 8, 17])

    def error(t_m):
        return jnp.sum(
            (pinhole.project(points[inliers] + t_m[None], K) - landmarks_px[inliers]) ** 2
        )

    for nudge in 0.0005 * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32):
        assert error(root.t_m + nudge) > error(root.t_m)
    assert 0.6 < float(root.noise_px) < 1.5


def test_recover_root_is_continuous_in_a_landmark(points, fit):
    """It loses its weight gradually as it moves away, and regains it."""
    landmarks_px = project_noisy(points, noise_px=1.0)
    away_px = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, -0.1, -0.5)])
    roots = []
    for px in away_px:
        moved = landmarks_px.copy()
        moved[12] += np.float32([0.6, 0.8]) * np.float32(px)
        roots.append(fit(points, moved, K))
    t_m = np.array([root.t_m for root in roots])
    inlier_probability = np.array([root.inlier_probability[12] for root in roots])
    farthest = int(np.argmax(away_px))
    assert inlier_probability[0] > 0.9
    assert inlier_probability[farthest] < 1e-3
    np.testing.assert_array_equal(t_m, t_m[::-1])
    deviation_m = max(depth_deviation_m(root) for root in roots)
    assert np.linalg.norm(np.diff(t_m, axis=0), axis=1).max() < deviation_m
    assert np.linalg.norm(t_m[farthest] - t_m[0]) < 0.01


def test_recover_root_is_invariant_to_crops(points, fit):
    landmarks_px = project_noisy(points, noise_px=1.0)
    landmarks_px[4] += 60
    root = fit(points, landmarks_px, K)
    crop = np.array([[2.1, 0.9, 30.0], [-0.9, 2.1, -12.0]], np.float32)
    crop_k = np.array([[*crop[0]], [*crop[1]], [0, 0, 1]], np.float32) @ K
    cropped = fit(points, pinhole.apply_affine(landmarks_px, crop), crop_k)
    np.testing.assert_allclose(cropped.t_m, root.t_m, atol=2e-5)
    np.testing.assert_allclose(cropped.inlier_probability, root.inlier_probability, atol=1e-3)
    np.testing.assert_allclose(cropped.noise_px, np.hypot(2.1, 0.9) * root.noise_px, rtol=1e-2)
    np.testing.assert_allclose(cropped.covariance_m2, root.covariance_m2, rtol=0.02, atol=1e-8)


def test_recover_root_follows_the_origin_of_the_points(points, fit):
    landmarks_px = project_noisy(points, noise_px=1.0)
    shift = np.array([0.02, 0.01, -0.03], np.float32)
    moved = fit(points + shift, landmarks_px, K)
    np.testing.assert_allclose(moved.t_m, fit(points, landmarks_px, K).t_m - shift, atol=2e-5)


def test_recover_root_covariance_is_calibrated(points):
    """Over 300 draws of noise, with and without outliers."""
    rng = np.random.default_rng(3)
    landmarks_px = np.stack([project_noisy(points, noise_px=1.5, seed=s) for s in range(300)])
    landmarks_px[150:, [3, 10, 13]] += 30 * rng.normal(size=(150, 3, 2)).astype(np.float32)
    roots = recover_roots(np.stack([points] * 300), landmarks_px, np.stack([K] * 300))
    error_m = np.asarray(roots.t_m) - T_M
    squared = np.einsum("bi,bij,bj->b", error_m, np.linalg.inv(roots.covariance_m2), error_m)
    for half in (squared[:150], squared[150:]):
        assert 3 / 1.4 < half.mean() < 3 * 1.4  # Chi squared of three degrees of freedom.
    np.testing.assert_allclose(np.median(roots.noise_px), 1.5, rtol=0.1)


def test_recover_root_is_finite_and_uncertain_for_random_landmarks(points, fit):
    random = 300 * np.random.default_rng(4).normal(size=(21, 2)).astype(np.float32) + 112
    one_place = np.full((21, 2), 50, np.float32)
    mirrored = 220 - project_noisy(points)
    usual_m = depth_deviation_m(fit(points, project_noisy(points, noise_px=1.0), K))
    for landmarks_px in (random, one_place, mirrored):
        root = fit(points, landmarks_px, K)
        assert all(jnp.isfinite(leaf).all() for leaf in root)
        assert (points[:, 2] + root.t_m[2]).min() > 0.99 * root_recovery.NEAREST_M
        assert depth_deviation_m(root) > 5 * usual_m


@pytest.mark.parametrize("spread_px", [0.0, 1e-3, 1e-2, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0])
def test_recover_root_bounds_degenerate_landmarks(fit, spread_px, size):
    """As an untrained network predicts: all at one point, or anywhere."""
    rng = np.random.default_rng(0)
    points = (0.04 * size * rng.normal(size=(21, 3))).astype(np.float32)
    landmarks_px = (112 + spread_px * rng.normal(size=(21, 2))).astype(np.float32)
    root = fit(points, landmarks_px, K)
    assert all(jnp.isfinite(leaf).all() for leaf in root)
    assert 0 < root.t_m[2] <= root_recovery.FARTHEST_M
    assert (jnp.diagonal(root.covariance_m2) > 0).all()


@pytest.mark.long
def test_recover_root_gradient_matches_finite_differences(points, fit):
    landmarks_px = project_noisy(points, noise_px=1.0)
    landmarks_px[7] += 40

    @jax.jit
    def depth(landmarks_px):
        return recover_root(points, landmarks_px, K).t_m[2]

    gradient = jax.grad(depth)(landmarks_px)
    assert jnp.isfinite(gradient).all()
    along = landmarks_px - landmarks_px.mean(axis=0, keepdims=True)
    along[7] = 0
    want = (depth(landmarks_px + 0.02 * along) - depth(landmarks_px - 0.02 * along)) / 0.04
    np.testing.assert_allclose(jnp.sum(gradient * along), want, rtol=1e-2)
    assert jnp.isfinite(jax.grad(depth)(np.full((21, 2), 50, np.float32))).all()


@pytest.mark.parametrize("weighting", [[1.0] * 21, [0.0] * 10 + [1.0] * 11, [0.5, 2.0, 0.1] * 7])
def test_linear_translations_are_exact_without_noise(points, weighting):
    rays = (points + T_M)[:, :2] / (points + T_M)[:, 2:]
    weights = jnp.stack([jnp.array(weighting), jnp.ones(21)])
    got = root_recovery.linear_translations(jnp.asarray(points), jnp.asarray(rays), weights)
    np.testing.assert_allclose(got, np.stack([T_M] * 2), atol=1e-5)


@pytest.fixture(scope="module")
def fit_both():
    return jax.jit(recover_root)


def extent_of(verts, t_m=T_M):
    extent_px = np.round(np.asarray(mesh_extent_px(verts, jnp.asarray(t_m), K)))
    return SilhouetteExtent(extent_px, np.ones(len(DIRECTIONS), bool))


@pytest.mark.parametrize("scale", [0.9, 1.12])
def test_silhouette_corrects_the_scale_of_landmarks(hand, fit, fit_both, scale):
    points, verts = hand
    landmarks_px = project_noisy(points, noise_px=0.5)
    middle = landmarks_px.mean(axis=0)
    landmarks_px = middle + np.float32(scale) * (landmarks_px - middle)
    alone = fit(points, landmarks_px, K)
    both = fit_both(points, landmarks_px, K, Silhouette(verts, extent_of(verts)))
    assert np.linalg.norm(alone.t_m - T_M) > 0.05
    error_m = np.linalg.norm(both.t_m - T_M)
    assert error_m < 0.006
    assert error_m < 3 * depth_deviation_m(both)


def test_silhouette_ignores_hidden_and_wrong_directions(hand, fit_both):
    """A hand truncated by the border, and a mask that includes a sleeve."""
    points, verts = hand
    landmarks_px = project_noisy(points, noise_px=0.5)
    extent = extent_of(verts)
    complete = fit_both(points, landmarks_px, K, Silhouette(verts, extent))
    is_visible = np.arange(24) >= 5
    truncated = SilhouetteExtent(np.where(is_visible, extent.px, 0), is_visible)
    sleeve_px = np.where(np.arange(24) < 4, 25, 0).astype(np.float32)
    sleeve = extent._replace(px=extent.px + sleeve_px)
    for other in (truncated, sleeve):
        root = fit_both(points, landmarks_px, K, Silhouette(verts, other))
        np.testing.assert_allclose(root.t_m, complete.t_m, atol=0.004)


def test_silhouette_tolerates_a_wide_outline(hand, fit_both):
    """A mask may include every pixel that it touches."""
    points, verts = hand
    extent = extent_of(verts)
    wide = extent._replace(px=extent.px + np.float32(0.4))
    root = fit_both(points, project_noisy(points, noise_px=0.5), K, Silhouette(verts, wide))
    assert np.linalg.norm(root.t_m - T_M) < 2.5 * depth_deviation_m(root)


@pytest.mark.parametrize("extent", [NO_EXTENT, silhouette_extent(np.zeros((224, 224), bool))])
def test_silhouette_without_visible_extent_changes_nothing(hand, fit, fit_both, extent):
    """Also with outliers, so hands with and without masks can share a batch."""
    points, verts = hand
    landmarks_px = project_noisy(points, noise_px=0.5)
    landmarks_px[[4, 8]] += 40
    alone = fit(points, landmarks_px, K)
    both = fit_both(points, landmarks_px, K, Silhouette(verts, extent))
    np.testing.assert_allclose(both.t_m, alone.t_m, atol=1e-6)
    np.testing.assert_allclose(both.covariance_m2, alone.covariance_m2, rtol=1e-3, atol=1e-10)
    np.testing.assert_allclose(both.inlier_probability, alone.inlier_probability, atol=1e-4)


def test_silhouette_without_visible_width_keeps_the_landmark_scale(hand, fit, fit_both):
    """A hand that fills the image: a single direction must not make its depth uncertain."""
    points, verts = hand
    landmarks_px = project_noisy(points, noise_px=0.5)
    is_visible = np.arange(24) == 3
    extent = SilhouetteExtent(np.where(is_visible, extent_of(verts).px, 0), is_visible)
    alone = fit(points, landmarks_px, K)
    both = fit_both(points, landmarks_px, K, Silhouette(verts, extent))
    assert depth_deviation_m(both) < 1.1 * depth_deviation_m(alone)
    assert np.linalg.norm(both.t_m - T_M) < 3 * depth_deviation_m(both)


def errors_mm(t_m, true_m):
    error_mm = 1000 * np.linalg.norm(np.asarray(t_m) - true_m, axis=1)
    return np.median(error_mm), np.percentile(error_mm, 95)


def arrays(problems, prefix=""):
    names = ("joints_rel", "uv", "K")
    return [np.asarray(problems[f"{prefix}{name}"], np.float32) for name in names]


@pytest.mark.parity
def test_recover_roots_beats_published_registration(reference):
    """Nearly as accurate as least squares on the true inliers."""
    problems = np.load(reference / "registration.npz")
    roots = recover_roots(*arrays(problems))
    ours, theirs, oracle = (
        errors_mm(t_m, problems["t_true"])
        for t_m in (roots.t_m, problems["ref_t"], problems["t_ls_inliers"])
    )
    for ours_mm, theirs_mm, oracle_mm in zip(ours, theirs, oracle, strict=True):
        assert ours_mm < theirs_mm
        assert ours_mm < 1.25 * oracle_mm + 0.1
    is_outlier = problems["outlier_mask"]
    probability = np.asarray(roots.inlier_probability)
    assert (probability[is_outlier] > 0.5).mean() < 0.02
    assert (probability[~is_outlier] < 0.5).mean() < 0.02


@pytest.mark.parity
def test_recover_roots_with_silhouettes_beats_published_registration(reference):
    problems = np.load(reference / "registration.npz")
    masks = np.unpackbits(problems["poly_mask"], axis=-1).astype(bool)
    extents = SilhouetteExtent(*map(np.stack, zip(*map(silhouette_extent, masks), strict=True)))
    silhouette = Silhouette(problems["poly_verts_rel"], extents)
    roots = recover_roots(*arrays(problems, "poly_"), silhouette)
    ours, theirs = (
        errors_mm(t_m, problems["poly_t_true"]) for t_m in (roots.t_m, problems["poly_ref_t"])
    )
    assert ours[0] < theirs[0]
    assert ours[1] < theirs[1]
