import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.fitting import (
    OWN_CONVENTION,
    Observation,
    landmark_std,
    make_fit,
    reliability,
    search,
    terms,
)
from m3dhmr_jax.fitting.observation import NETWORK_STD
from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.capsules import fit_capsules
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.math3d import random_rotation
from m3dhmr_jax.metrics.freihand import aligned_and_centred
from m3dhmr_jax.synthetic.poses import sample_articulation, sample_shape
from m3dhmr_jax.synthetic.recipe import FULL

N = 8  # Every batch has as many hands, so that the fit compiles once.


@pytest.fixture(scope="module")
def fit():
    return make_fit(load_builtin(), OWN_CONVENTION)


@pytest.fixture(scope="module")
def truth():
    """Posed hands in camera space and their exact observations."""
    rng, hand, details = np.random.default_rng(0), load_builtin(), load_details()
    capsules = fit_capsules(hand)
    shapes = np.stack([sample_shape(rng, 10, 1.0) for _ in range(N)])
    own = np.stack(
        [sample_articulation(rng, hand, details, capsules, shape, FULL) for shape in shapes]
    )
    own[:, 0] = [random_rotation(rng) for _ in range(N)]
    posed = jax.vmap(lambda r, s: pose_hand(hand, r, s))(np.float32(own), np.float32(shapes))
    t_m = rng.uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 0.8], (N, 3))
    verts_m, joints_m = (np.asarray(x) + t_m[:, None] for x in (posed.verts_m, posed.joints_m))
    return verts_m, joints_m, observe(joints_m, rng)


def observe(joints_m, rng, focal_px=420.0):
    intrinsics = np.tile(
        np.array([[focal_px, 0, 111.5], [0, focal_px, 111.5], [0, 0, 1]]), (N, 1, 1)
    )
    uv = np.einsum("bij,bnj->bni", intrinsics, joints_m)
    uv = uv[..., :2] / uv[..., 2:]
    joints_rel = joints_m - joints_m[:, :1]
    to_ray = np.stack([rotation_to_ray(each) for each in uv_rays(uv, intrinsics)])
    joints_rel = np.einsum("bji,bnj->bni", to_ray, joints_rel) * rng.uniform(0.9, 1.1, (N, 1, 1))
    arrays = (uv, np.full((N, 21), 2e-3), joints_rel, np.full(N, 25.0), intrinsics)
    shape = (np.zeros((N, 10)), np.ones((N, 10)))
    return Observation(*(np.float32(x) for x in (*arrays, *shape)))


def uv_rays(uv, intrinsics):
    rays = (uv - intrinsics[:, None, :2, 2]) / intrinsics[:, None, [0, 1], [0, 1]]
    return (rays.min(1) + rays.max(1)) / 2


def rotation_to_ray(ray):
    return np.asarray(search._rotation_to_ray(jnp.asarray(ray, jnp.float32)))


def aligned_error_mm(got, want):
    pair = jax.vmap(aligned_and_centred)(jnp.asarray(got), jnp.asarray(want, jnp.float32))
    return 1000 * np.linalg.norm(pair[0] - pair[1], axis=2).mean(1)


def test_exact_landmarks_give_the_exact_hand(fit, truth):
    verts_m, joints_m, seen = truth
    found = fit(seen)
    assert aligned_error_mm(found.verts_m, verts_m).mean() < 1
    np.testing.assert_allclose(found.residual, 0, atol=2e-3)
    root_m = np.linalg.norm(np.asarray(found.joints_m)[:, 0] - joints_m[:, 0], axis=1)
    std_m = np.sqrt(np.trace(np.asarray(found.root_covariance_m2), axis1=1, axis2=2))
    assert (root_m < 4 * std_m).all()


def test_joints_are_those_of_the_mesh_posed_as_returned(fit, truth):
    found = fit(truth[2])
    posed = jax.vmap(lambda r, s: pose_hand(load_builtin(), r, s))(found.rotations, found.shape)
    for got, want in ((found.verts_m, posed.verts_m), (found.joints_m, posed.joints_m)):
        np.testing.assert_allclose(
            got - found.joints_m[:, :1], want - posed.joints_m[:, :1], atol=1e-5
        )


def with_outliers(seen, rng):
    """2 % noise, and three of the 21 wrong by 20 to 50 % of the box."""
    uv = np.array(seen.landmarks_px)
    box = np.ptp(uv, axis=1).max(1)[:, None, None]
    uv += 0.02 * box * rng.normal(size=uv.shape)
    for i in range(N):
        wrong = rng.permutation(21)[:3]
        angle, far = rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.2, 0.5, 3)
        uv[i, wrong] += box[i] * (far * np.stack([np.cos(angle), np.sin(angle)])).T
    joints = seen.joints_rel_m + 0.005 * rng.normal(size=seen.joints_rel_m.shape)
    return seen._replace(
        landmarks_px=np.float32(uv),
        landmark_std=np.full_like(seen.landmark_std, 0.02),
        joints_rel_m=np.float32(joints),
        joints_weight=np.ones_like(seen.joints_weight),
    )


def test_outliers_are_ignored(fit, truth):
    verts_m, _, seen = truth
    found = fit(with_outliers(seen, np.random.default_rng(1)))
    assert aligned_error_mm(found.verts_m, verts_m).mean() < 8


def test_2d_landmarks_alone_suffice(fit, truth):
    _, _, seen = truth
    seen = seen._replace(joints_weight=np.zeros(N, np.float32))
    found = fit(seen)
    assert np.median(found.residual) < 0.01
    assert (np.asarray(found.joints_residual) == 0).all()
    ignored = fit(seen._replace(joints_rel_m=np.float32(9.0 + 0 * seen.joints_rel_m)))
    np.testing.assert_allclose(found.verts_m, ignored.verts_m, atol=1e-4)


def test_hands_do_not_influence_each_other(fit, truth):
    """Not even those that need the search without 3D landmarks."""
    _, _, seen = truth
    together = fit(seen).verts_m
    mixed = seen._replace(joints_weight=np.where(np.arange(N) < 3, 0, seen.joints_weight))
    np.testing.assert_allclose(fit(mixed).verts_m[3:], together[3:], atol=2e-4)


def test_scaling_the_image_changes_nothing(fit, truth):
    _, _, seen = truth
    twice = seen._replace(
        landmarks_px=2 * seen.landmarks_px,
        intrinsics=seen.intrinsics * np.array([2, 2, 1], np.float32)[:, None],
    )
    want, got = fit(seen), fit(twice)
    np.testing.assert_allclose(got.verts_m, want.verts_m, atol=5e-4)
    np.testing.assert_allclose(got.noise_px, 2 * want.noise_px, rtol=0.05)


def test_rotating_the_image_rotates_the_hand_about_the_optical_axis(fit, truth):
    _, _, seen = truth
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    centre = seen.intrinsics[:, None, :2, 2]
    rotated = seen._replace(landmarks_px=(seen.landmarks_px - centre) @ turn[:2, :2].T + centre)
    # The 3D landmarks turn with the ray to the hand, whose box is another after rotation.
    rays = (
        uv_rays(seen.landmarks_px, seen.intrinsics),
        uv_rays(rotated.landmarks_px, seen.intrinsics),
    )
    joints = [
        each @ rotation_to_ray(before).T @ turn.T @ rotation_to_ray(after)
        for each, before, after in zip(seen.joints_rel_m, *rays, strict=True)
    ]
    found = fit(rotated._replace(joints_rel_m=np.stack(joints)))
    want = np.asarray(fit(seen).verts_m) @ turn.T
    np.testing.assert_allclose(found.verts_m, want, atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        dict(landmarks_px=0.0),
        dict(landmarks_px=1e30),
        dict(landmark_std=0.0),
        dict(joints_rel_m=0.0),
        dict(joints_rel_m=-1e30),
        dict(intrinsics=0.0),
        dict(shape_std=0.0),
    ],
)
def test_degenerate_observations_stay_finite(fit, truth, change):
    _, _, seen = truth
    name, value = next(iter(change.items()))
    broken = seen._replace(**{name: np.full_like(getattr(seen, name), value)})
    assert all(np.isfinite(leaf).all() for leaf in fit(broken))


def test_known_shape_is_kept_and_its_uncertainty_shrinks(fit, truth):
    _, _, seen = truth
    found = fit(seen._replace(shape_std=np.full((N, 10), 1e-3, np.float32)))
    np.testing.assert_allclose(found.shape, 0, atol=5e-3)
    assert (np.asarray(found.shape_std) < 1.1e-3).all()
    assert (np.asarray(fit(seen).shape_std) <= 1.001).all()


@pytest.fixture(scope="module")
def problem(truth):
    """One observation next to wrong unknowns, with fingers inside each other."""
    _, _, seen = truth
    seen = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), seen)
    tables = terms.build_tables(load_builtin(), 0.1, 0.15)
    start = search.build_start(tables)

    @jax.jit
    def unknowns(seen):
        target = search.as_target(OWN_CONVENTION, seen)
        return target, search.start_at(tables, start, target, seen, jnp.int32(0))

    target, unknowns = unknowns(seen)
    angles = unknowns.angles_rad.at[jnp.array([0, 4])].set(jnp.array([-0.47, 2.0]))
    spin = jnp.array([0.1, -0.2, 0.3])
    return tables, target, unknowns._replace(angles_rad=angles, joints_rotation=spin)


@pytest.fixture(scope="module")
def linearise(problem):
    """Cost, overlaps, both derivatives written by hand, and by autodiff gradient and Jacobian."""
    tables, target, unknowns = problem
    weights = OWN_CONVENTION

    @jax.jit
    def evaluate(outlier_std):
        known = (tables, target, weights, outlier_std)

        def at(step):
            moved = terms.changed(unknowns, step)
            return moved, terms.residuals(tables, target, moved)

        def rows(step):
            found = at(step)[1]
            deep_m = jnp.maximum(found.overlap.depth_m - weights.free_overlap_m, 0)
            parts = (
                found.reprojection * jnp.sqrt(target.precision_2d)[None],
                found.difference_m * jnp.sqrt(target.precision_3d)[None],
                deep_m / weights.overlap_std_m,
            )
            return jnp.concatenate([part.reshape(-1) for part in parts])

        zero = jnp.zeros(68)
        by_autodiff = jax.jacfwd(lambda step: (terms.cost(*known, *at(step)), rows(step)))(zero)
        moved, found = at(zero)
        gradient, hessian = terms.normal_equations(*known, moved, found)
        hessian -= terms.prior_terms(tables, target, weights, moved).hessian
        return found.overlap.depth_m, gradient, hessian, *by_autodiff

    return evaluate


def test_gradient_matches_autodiff(linearise):
    depth_m, gradient, _, want, _ = linearise(jnp.float32(6))
    assert (depth_m > OWN_CONVENTION.free_overlap_m).any()
    np.testing.assert_allclose(gradient, want / 2, atol=1e-4 * float(jnp.abs(want).max()))


def test_hessian_is_the_sum_of_squared_derivatives(linearise):
    """Without outliers the weights are constant."""
    _, _, hessian, _, jacobian = linearise(jnp.float32(1e6))
    want = np.asarray(jacobian).T @ np.asarray(jacobian)
    np.testing.assert_allclose(hessian, want, atol=1e-3 * np.abs(want).max())


def test_landmark_std_grows_with_disagreement():
    std = np.asarray(landmark_std(np.array([[0.0, 0.03]])))
    np.testing.assert_allclose(std, [[NETWORK_STD, np.hypot(NETWORK_STD, 0.03)]])


def test_reliability_falls_with_each_of_its_signals():
    good = np.array([0.01, 0.03, 0.01])
    bad = good[:, None] * np.ones(3) + np.diag([0.08, 0.2, 0.04])
    assert (reliability(*bad) < 0.5).all()
    assert reliability(*good[:, None]) > 0.7
    assert reliability(*np.zeros((3, 1))) == 1
