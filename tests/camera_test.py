import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax import camera


@pytest.fixture
def matrix():
    """A turn by 0.7 rad, scale 1.8, and a shift."""
    turn = 1.8 * np.array([[np.cos(0.7), np.sin(0.7)], [-np.sin(0.7), np.cos(0.7)]])
    return np.concatenate([turn, [[30.0], [-12.0]]], axis=1).astype(np.float32)


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(0, 224, (9, 2)).astype(np.float32)


def test_affine_follows_the_linear_part_and_then_shifts(points, matrix):
    want = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(camera.apply_affine(points, matrix), want, rtol=1e-5, atol=1e-4)


def test_inverse_affine_undoes_the_map(points, matrix):
    there = camera.apply_affine(points, matrix)
    back = camera.apply_affine(there, camera.invert_affine(matrix))
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_composition_applies_the_inner_map_first(points, matrix):
    outer = np.array([[0.5, 0.2, 7.0], [-0.1, 2.0, 3.0]], np.float32)
    want = camera.apply_affine(camera.apply_affine(points, matrix), outer)
    got = camera.apply_affine(points, camera.compose_affine(outer, matrix))
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_affine_helpers_batch_under_vmap_and_jit(points, matrix):
    there_and_back = jax.jit(
        jax.vmap(
            lambda p, m: camera.apply_affine(camera.apply_affine(p, m), camera.invert_affine(m))
        )
    )
    got = there_and_back(jnp.stack([points, 2 * points]), jnp.stack([matrix, 0.5 * matrix]))
    np.testing.assert_allclose(got, [points, 2 * points], atol=1e-3)


@pytest.mark.parity
def test_affine_helpers_match_the_peers_crops(reference):
    crops = np.load(reference / "augmentation.npz")
    src = crops["points_src"]
    got = jax.vmap(camera.apply_affine)(src, crops["trans"])
    np.testing.assert_allclose(got, crops["points_dst"], atol=1e-3)
    np.testing.assert_allclose(
        jax.vmap(camera.invert_affine)(crops["trans"]), crops["inv_trans"], atol=2e-3, rtol=1e-4
    )


def test_turning_by_a_quarter_is_counter_clockwise_on_the_screen():
    right = np.array([[1.0, 0.0, 5.0]], np.float32)
    up = np.array([[0.0, -1.0, 5.0]], np.float32)  # y points down.
    turned = camera.turn_with_picture(right, jnp.array(np.pi / 2))
    np.testing.assert_allclose(turned, up, atol=1e-6)


@pytest.mark.parity
def test_turning_points_is_what_the_peers_crop_does_to_the_picture(reference):
    crops = np.load(reference / "augmentation.npz")
    towards = np.concatenate([np.eye(2), np.zeros((2, 1))], 1).astype(np.float32)
    for matrix, degrees, dst, src in zip(
        crops["trans"], crops["rot_deg"], crops["dst_wh"], crops["src_wh"], strict=True
    ):
        turned = camera.turn_with_picture(towards, jnp.deg2rad(degrees))[:, :2]
        pixels = turned * (dst / src)[None]
        got = matrix[:, :2].T / np.linalg.norm(matrix[:, :2].T, axis=1, keepdims=True)
        want = pixels / jnp.linalg.norm(pixels, axis=1, keepdims=True)
        np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.fixture
def hand():
    """21 root-relative points, where they stand, K, and their noisy pixels."""
    rng = np.random.default_rng(1)
    points = (0.05 * rng.normal(size=(21, 3))).astype(np.float32)
    t_m = np.array([0.06, -0.03, 0.7], np.float32)
    intrinsics = np.array([[480.0, 0, 112], [0, 470, 110], [0, 0, 1]], np.float32)
    noise = rng.normal(size=(21, 2)).astype(np.float32)
    return points, t_m, intrinsics, camera.project(points + t_m, intrinsics) + noise


@pytest.fixture(scope="module")
def fit():
    """Compiled once; always with weights, as compiling is what takes the time."""
    return jax.jit(camera.fit_translation)


def test_projection_matches_the_homogeneous_product(hand):
    points, t_m, intrinsics, _ = hand
    homogeneous = (points + t_m).astype(np.float64) @ intrinsics.T
    want = homogeneous[:, :2] / homogeneous[:, 2:]
    np.testing.assert_allclose(camera.project(points + t_m, intrinsics), want, rtol=1e-5)


def test_crop_intrinsics_project_into_the_crop(hand, matrix):
    points, t_m, intrinsics, _ = hand
    want = camera.apply_affine(camera.project(points + t_m, intrinsics), matrix)
    got = camera.project(points + t_m, camera.crop_intrinsics(intrinsics, matrix))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("t_m", [(0.0, 0.0, 0.3), (0.2, -0.1, 0.6), (-0.4, 0.3, 1.2)])
def test_translation_is_recovered_without_noise(hand, fit, t_m):
    points, _, intrinsics, _ = hand
    uv_px = camera.project(points + np.array(t_m, np.float32), intrinsics)
    np.testing.assert_allclose(fit(points, uv_px, intrinsics, jnp.ones(21)), t_m, atol=2e-6)


def test_linear_solution_is_exact_without_noise(hand):
    points, t_m, *_ = hand
    rays = (points + t_m)[:, :2] / (points + t_m)[:, 2:]
    got = camera.linear_translation(jnp.asarray(points), jnp.asarray(rays), jnp.ones(21))
    np.testing.assert_allclose(got, t_m, atol=2e-6)


def test_fit_minimises_the_reprojection_error(hand, fit):
    points, _, intrinsics, uv_px = hand

    def error(t_m):
        return jnp.sum((camera.project(points + t_m[None], intrinsics) - uv_px) ** 2)

    t_m = fit(points, uv_px, intrinsics, jnp.ones(21))
    for nudge in 0.0005 * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32):
        assert error(t_m + nudge) > error(t_m)


def test_fit_is_the_same_in_a_crop_and_follows_the_origin(hand, fit, matrix):
    points, _, intrinsics, uv_px = hand
    t_m = fit(points, uv_px, intrinsics, jnp.ones(21))
    in_crop = camera.apply_affine(uv_px, matrix), camera.crop_intrinsics(intrinsics, matrix)
    np.testing.assert_allclose(fit(points, *in_crop, jnp.ones(21)), t_m, atol=1e-5)
    shift = np.array([0.02, 0.01, -0.03], np.float32)
    moved = fit(points + shift, uv_px, intrinsics, jnp.ones(21))
    np.testing.assert_allclose(moved, t_m - shift, atol=1e-5)


def test_landmarks_without_weight_do_not_count(hand, fit):
    points, t_m, intrinsics, _ = hand
    uv_px = camera.project(points + t_m, intrinsics).at[4].add(300.0)
    weights = jnp.ones(21).at[4].set(0)
    np.testing.assert_allclose(fit(points, uv_px, intrinsics, weights), t_m, atol=2e-6)
    everything = camera.fit_translation(points, uv_px, intrinsics)
    np.testing.assert_allclose(everything, fit(points, uv_px, intrinsics, jnp.ones(21)), rtol=1e-5)
    assert jnp.abs(everything - t_m).max() > 0.01


def test_impossible_landmarks_give_a_finite_place_in_front_of_the_camera(hand, fit):
    points, _, intrinsics, uv_px = hand
    one_place, mirrored = jnp.full((21, 2), 50.0), 200 - uv_px
    wild = 1e3 * jax.random.normal(jax.random.key(0), (21, 2))
    cases = [(one_place, jnp.ones(21)), (mirrored, jnp.ones(21)), (wild, jnp.ones(21))]
    for uv, weights in [*cases, (uv_px, jnp.zeros(21))]:
        t_m = fit(points, uv, intrinsics, weights)
        assert jnp.isfinite(t_m).all()
        assert (points[:, 2] + t_m[2]).min() > 0.99 * camera.NEAREST_M


def test_gradient_of_the_fit_is_finite_and_right(hand, fit):
    points, _, intrinsics, uv_px = hand

    def depth(uv_px):
        return fit(points, uv_px, intrinsics, jnp.ones(21))[2]

    slope = jax.grad(depth)(uv_px)
    assert jnp.isfinite(slope).all()
    along = uv_px - uv_px.mean(axis=0, keepdims=True)
    step = 0.02 * along
    want = (depth(uv_px + step) - depth(uv_px - step)) / 0.04
    np.testing.assert_allclose(jnp.sum(slope * along), want, rtol=5e-3)
    one_place = jax.grad(depth)(jnp.full((21, 2), 50.0))
    assert jnp.isfinite(one_place).all()


@pytest.mark.parity
def test_fit_is_least_squares_on_the_recorded_problems(reference):
    """Reaches the recorded plain least squares; without outliers its median error is no larger."""
    problems = np.load(reference / "registration.npz")
    names = ("joints_rel", "uv", "K")
    arrays = [jnp.asarray(problems[name], jnp.float32) for name in names]
    got_m = np.asarray(jax.jit(jax.vmap(lambda *hand: camera.fit_translation(*hand)))(*arrays))
    np.testing.assert_allclose(got_m, problems["t_ls_all"], atol=2e-6)
    clean = problems["n_outliers"] == 0
    error_mm, recorded_mm = (
        1000 * np.median(np.linalg.norm(t_m - problems["t_true"], axis=1)[clean])
        for t_m in (got_m, problems["t_ls_all"])
    )
    assert error_mm <= recorded_mm + 1e-3  # A micrometre for float32.


@pytest.mark.parametrize("spread_px", [0.0, 1e-3, 1e-2, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0])
def test_landmarks_that_fit_no_hand_leave_it_in_finite_reach(spread_px, size):
    """As an untrained network answers: all in one spot, or anywhere."""
    rng = np.random.default_rng(0)
    points = (0.04 * size * rng.normal(size=(21, 3))).astype(np.float32)
    uv_px = (112 + spread_px * rng.normal(size=(21, 2))).astype(np.float32)
    intrinsics = np.array([[450, 0, 112], [0, 455, 110], [0, 0, 1]], np.float32)
    t_m = jax.jit(camera.fit_translation)(points, uv_px, intrinsics)
    assert jnp.isfinite(t_m).all()
    assert 0 < t_m[2] <= camera.FARTHEST_M
