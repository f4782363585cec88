import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.metrics import freihand

NAMES = ("pred_xyz", "pred_verts", "gt_xyz", "gt_verts")
# Of our fields and the official script.
ERROR_NAMES = (
    *(("joint_errors_m", "xyz"), ("vert_errors_m", "mesh")),
    *(("joint_errors_al_m", "xyz_al"), ("vert_errors_al_m", "mesh_al")),
)


def rotation_about(axis, angle):
    return scipy.spatial.transform.Rotation.from_rotvec(angle * np.array(axis)).as_matrix()


@pytest.fixture
def hands():
    """Five hands of 21 joints and 40 vertices, 0.7 m away: (pred_xyz, pred_verts, ...)."""
    rng = np.random.default_rng(0)
    centre = np.array([0.05, -0.02, 0.7])
    truth = centre + 0.05 * rng.normal(size=(5, 61, 3))
    pred = truth + 0.01 * rng.normal(size=(5, 61, 3))
    pred, truth = pred.astype(np.float32), truth.astype(np.float32)
    return pred[:, :21], pred[:, 21:], truth[:, :21], truth[:, 21:]


@pytest.mark.parametrize("mirror", [1, -1])
def test_alignment_undoes_similarities_and_reflections(hands, mirror):
    """The official alignment has no guard against reflections."""
    _, _, xyz, verts = hands
    map_ = 1.7 * rotation_about([0.6, 0.0, 0.8], 2.0) @ np.diag([mirror, 1, 1])
    moved = [(x @ map_ + 0.3).astype(np.float32) for x in (xyz, verts)]
    samples = freihand.batch_metrics(*moved, xyz, verts)
    result = freihand.scores(samples)
    assert result["pa_mpjpe_mm"] < 1e-3
    assert result["pa_mpvpe_mm"] < 1e-3
    assert result["f_5"] == 1
    assert result["xyz_mean3d"] > 0.1


def test_alignment_is_optimal(hands):
    pred, truth = hands[1][0], hands[3][0]
    aligned, centred = freihand.aligned_and_centred(jnp.asarray(pred), jnp.asarray(truth))
    best = jnp.sum((aligned - centred) ** 2)
    nudges = [1.01 * aligned, 0.99 * aligned, aligned + 1e-3]
    nudges += [aligned @ rotation_about(axis, 0.01).astype(np.float32) for axis in np.eye(3)]
    assert all(jnp.sum((nudged - centred) ** 2) > best for nudged in nudges)


def test_relative_scores_ignore_translation(hands):
    pred_xyz, pred_verts, xyz, verts = hands
    shift = np.array([0.1, -0.2, 0.3], np.float32)
    here = freihand.scores(freihand.batch_metrics(*hands))
    there = freihand.scores(
        freihand.batch_metrics(pred_xyz + shift, pred_verts + shift, xyz, verts)
    )
    for name in ("mpjpe_mm", "mpvpe_mm", "pa_mpjpe_mm", "pa_mpvpe_mm", "f_5", "f_15"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-4)
    assert there["mesh_mean3d"] > 0.3
    wrist = pred_xyz[:, :1] - xyz[:, :1]
    want = 1000 * np.linalg.norm(pred_verts - verts - wrist, axis=-1).mean()
    np.testing.assert_allclose(here["mpvpe_mm"], want, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_alignment_of_points_without_extent_is_centroid(hands, value):
    _, _, xyz, verts = hands
    flat = [np.full_like(x, value) for x in (xyz, verts)]
    samples = freihand.batch_metrics(*flat, xyz, verts)
    want = np.linalg.norm(xyz - xyz.mean(1, keepdims=True), axis=-1)
    np.testing.assert_allclose(samples.joint_errors_al_m, want, atol=1e-6)
    assert np.isfinite(list(freihand.scores(samples).values())).all()


@pytest.mark.parametrize(
    "nearest",
    [freihand.nearest_squared, freihand._nearest_loop, freihand._nearest_pairs],
)
def test_nearest_squared_matches_kd_tree(hands, nearest):
    squared = nearest(jnp.asarray(hands[1][0]), jnp.asarray(hands[3][1]))
    want, _ = scipy.spatial.cKDTree(hands[3][1]).query(hands[1][0])
    np.testing.assert_allclose(np.sqrt(squared), want, rtol=1e-5)


def test_f_score_is_harmonic_mean():
    """Ten predicted vertices at one true vertex: recall 1/10, precision 1."""
    truth = 0.1 * np.arange(30, dtype=np.float32).reshape(1, 10, 3)
    pred = np.repeat(truth[:, :1], 10, axis=1)
    samples = freihand.batch_metrics(pred, pred, truth, truth)
    np.testing.assert_array_equal(samples.matched[0], [[1, 1], [10, 10]])
    np.testing.assert_allclose(freihand.scores(samples)["f_score_5"], 2 * 0.1 / 1.1)
    far = freihand.batch_metrics(pred + 1, pred + 1, truth, truth)
    assert freihand.scores(far)["f_score_15"] == 0


def test_pck_includes_threshold():
    errors_m = freihand.PCK_THRESHOLDS_M[[0, 10, 10, 99]][None]
    curve = freihand.pck(np.append(errors_m, [[1.0]], axis=1))
    np.testing.assert_allclose(curve[[0, 9, 10, 98, 99]], [0.2, 0.2, 0.6, 0.6, 0.8])


def test_median3d_is_over_samples(hands):
    samples = freihand.batch_metrics(*hands)
    want = np.median(samples.joint_errors_m, axis=0).mean()
    np.testing.assert_allclose(freihand.scores(samples)["xyz_median3d"], want, rtol=1e-6)


def test_scores_ignore_padding(hands):
    """Even if it holds NaN."""
    spoilt = [x.copy() for x in hands]
    spoilt[0][3], spoilt[1][1] = np.nan, np.inf
    valid = np.array([True, False, True, False, True])
    alone = freihand.batch_metrics(*(x[valid] for x in hands))
    assert freihand.scores(freihand.batch_metrics(*spoilt), valid) == freihand.scores(alone)


def test_scores_are_independent_of_batch_size(hands):
    at_once = freihand.batch_metrics(*hands)
    parts = [freihand.batch_metrics(*(x[a:b] for x in hands)) for a, b in ((0, 2), (2, 5))]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    got, want = freihand.scores(joined), freihand.scores(at_once)
    np.testing.assert_allclose(list(got.values()), list(want.values()), rtol=1e-5)


@pytest.mark.parametrize("junk", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_scores_reject_nonfinite_sample(hands, junk, which):
    hands[which][3, 7, 1] = junk
    with pytest.raises(UserError, match="sample 3 "):
        freihand.scores(freihand.batch_metrics(*hands))


def test_scores_reject_empty_set(hands):
    with pytest.raises(UserError, match="none of 5 "):
        freihand.scores(freihand.batch_metrics(*hands), np.zeros(5, bool))


@pytest.fixture(scope="module")
def official(reference):
    return np.load(reference / "metrics.npz")


@pytest.fixture(scope="module")
def official_samples(official):
    """In float64, as the official script computes."""
    hands = [official[name].astype(np.float64) for name in NAMES]
    with jax.enable_x64(True):
        return jax.device_get(freihand.batch_metrics(*hands))


@pytest.mark.parity
def test_matched_counts_match_official(official, official_samples):
    vertices = official["gt_verts"].shape[1]
    np.testing.assert_array_equal(freihand.F_THRESHOLDS_M, official["f_thresholds"])
    for suffix, matched in (("", official_samples.matched), ("_al", official_samples.matched_al)):
        for kind, counts in zip(("gt", "pred"), np.moveaxis(matched, 1, 0), strict=True):
            fraction = official[f"sample_frac_{kind}_matched{suffix}"]
            np.testing.assert_array_equal(counts, np.round(fraction * vertices))
        got = freihand.f_scores(np.asarray(matched), vertices)
        np.testing.assert_allclose(got, official[f"sample_f{suffix}"], rtol=0, atol=1e-15)


@pytest.mark.parity
@pytest.mark.parametrize(("ours", "theirs"), ERROR_NAMES)
def test_errors_match_official(official, official_samples, ours, theirs):
    got, want = getattr(official_samples, ours), official[f"sample_{theirs}_err"]
    np.testing.assert_allclose(got, want, rtol=np.finfo(want.dtype).eps, atol=1e-11)


@pytest.mark.parity
def test_pck_matches_official(official, official_samples):
    np.testing.assert_allclose(freihand.PCK_THRESHOLDS_M, official["pck_thresholds"], rtol=1e-15)
    for ours, theirs in ERROR_NAMES:
        curve = freihand.pck(getattr(official_samples, ours))
        np.testing.assert_allclose(curve, official[f"{theirs}_pck"], rtol=0, atol=1e-12)


@pytest.mark.parity
def test_float32_changes_few_counts(official, official_samples):
    samples = freihand.batch_metrics(*(official[name] for name in NAMES))
    for name, got in samples._asdict().items():
        counted = name.startswith("matched")
        want = getattr(official_samples, name)
        np.testing.assert_allclose(got, want, rtol=0, atol=3 if counted else 3e-7)


def test_camera_scores_are_unaligned():
    rng = np.random.default_rng(0)
    joint_errors_m, vert_errors_m = rng.uniform(0, 0.1, (5, 21)), rng.uniform(0, 0.1, (5, 778))
    got = freihand.camera_scores(joint_errors_m, vert_errors_m)
    assert got["root_mm"] == pytest.approx(1000 * joint_errors_m[:, 0].mean())
    assert got["xyz_mean3d"] == pytest.approx(joint_errors_m.mean())
    assert got["mesh_median3d"] == pytest.approx(np.median(vert_errors_m, axis=0).mean())
    assert got["mesh_auc3d"] == pytest.approx(
        np.clip(1 - vert_errors_m / 0.05, 0, 1).mean(), abs=5e-3
    )
