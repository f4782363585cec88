import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax import losses
from m3dhmr_jax.camera import pinhole
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import Prediction, View

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
CROP_PX = 128


@pytest.fixture(scope="module")
def expected(reference):
    arrays = dict(np.load(reference / "losses.npz"))
    arrays["faces"] = np.load(reference / "mano" / "right_faces.npy")
    return arrays


@pytest.fixture
def views():
    """Two exact views of three tetrahedra: (view1, view2)."""
    rng = np.random.default_rng(0)
    verts = rng.normal(size=(3, 4, 3)).astype(np.float32)
    uv_img_px = rng.uniform(50, 170, (3, 21, 2)).astype(np.float32)

    def view(angle_rad: list[float], zoom: float) -> View:
        angle = np.array(angle_rad, np.float32)
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        linear = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1)
        crop_from_img = np.concatenate([linear, np.full((3, 2, 1), -20, np.float32)], 2)
        return View(
            image=np.zeros((3, 8, 8, 3), np.float32),
            landmarks_01=jax.vmap(pinhole.apply_affine)(uv_img_px, crop_from_img) / CROP_PX,
            verts=jax.vmap(pinhole.rotate_about_optical_axis)(verts, angle),
            angle_rad=angle,
            img_from_crop=jax.vmap(pinhole.invert_affine)(crop_from_img),
        )

    return view([0.3, -1.2, 0.0], 0.9), view([-0.5, 0.4, 2.0], 1.1)


def shifted(view: View, by: float) -> Prediction:
    return Prediction(verts=view.verts + by, landmarks_01=view.landmarks_01 + by)


def loss_terms_fn(pred1, view1, pred2, view2, valid=(True, True, True), **options):
    views = pred1, view1, pred2, view2
    return losses.two_view_terms(*views, TETRAHEDRON, jnp.array(valid), CROP_PX, **options)


def test_two_view_terms_of_exact_predictions_are_zero(views):
    terms = loss_terms_fn(shifted(views[0], 0), views[0], shifted(views[1], 0), views[1])
    assert set(terms) == {"mesh", "pose2d", "normal", "edge", "con3d", "con2d"}
    np.testing.assert_allclose(list(terms.values()), 0, atol=1e-5)


def test_two_view_terms_average_both_views(views):
    terms = loss_terms_fn(shifted(views[0], 0.1), views[0], shifted(views[1], 0.3), views[1])
    np.testing.assert_allclose([terms["mesh"], terms["pose2d"]], 0.2, rtol=1e-5)


def test_quality_multiplies_the_errors_to_labels_but_not_the_consistency(views):
    preds = shifted(views[0], 0.2), shifted(views[1], 0.1)
    pairs = preds[0], views[0], preds[1], views[1]
    alone = [loss_terms_fn(*pairs, valid=np.arange(3) == i) for i in range(3)]
    quality = np.array([0.2, 1.0, 0.5], np.float32)
    terms = loss_terms_fn(*pairs, quality=quality)
    for name, term in terms.items():
        weights = np.ones(3) if name in ("con3d", "con2d") else quality
        want = np.mean([weight * each[name] for weight, each in zip(weights, alone, strict=True)])
        np.testing.assert_allclose(term, want, rtol=1e-5, err_msg=name)


def test_con3d_ignores_a_common_error_but_not_a_wrong_rotation(views):
    view1, view2 = views
    shift = jnp.array([0.0, 0.0, 0.4])  # Along the optical axis: the same in both views.
    pred1 = Prediction(view1.verts + shift[None, None], view1.landmarks_01)
    pred2 = Prediction(view2.verts + shift[None, None], view2.landmarks_01)
    assert loss_terms_fn(pred1, view1, pred2, view2)["con3d"] < 1e-6
    wrong = view1._replace(angle_rad=-view1.angle_rad)
    assert loss_terms_fn(pred1, wrong, pred2, view2)["con3d"] > 0.1


def test_con2d_errors_are_measured_in_the_source_image(views):
    errors = losses.con2d_errors(
        views[0].landmarks_01 + 0.1,
        views[1].landmarks_01,
        views[0].img_from_crop,
        views[1].img_from_crop,
        CROP_PX,
    )
    np.testing.assert_allclose(  # The crop shows the image at 0.9 of its size.
        jnp.linalg.norm(errors, axis=-1), 0.1 * np.sqrt(2) / 0.9, rtol=1e-4
    )


@pytest.mark.parametrize("junk", [1e6, np.nan, np.inf])
def test_two_view_terms_ignore_padding(views, junk):
    """Terms equal those of the valid examples alone, and the padding's gradient is 0."""
    valid = (True, False, True)
    spoil = jnp.where(jnp.array(valid), 0, junk)[:, None, None]
    preds = [shifted(view, 0.1) for view in views]
    spoilt = [jax.tree.map(lambda x: x + spoil, pred) for pred in preds]
    bad_views = [
        view._replace(
            landmarks_01=view.landmarks_01 + spoil,
            verts=view.verts + spoil,
            angle_rad=view.angle_rad + spoil[:, 0, 0],
            img_from_crop=view.img_from_crop + spoil,
        )
        for view in views
    ]

    def loss(first, second):
        return sum(loss_terms_fn(first, bad_views[0], second, bad_views[1], valid).values())

    rows = np.array([0, 2])
    alone = [jax.tree.map(lambda x: x[rows], tree) for tree in (*preds, *views)]
    want = loss_terms_fn(alone[0], alone[2], alone[1], alone[3], (True, True))
    np.testing.assert_allclose(loss(*spoilt), sum(want.values()), rtol=1e-5)
    for grad in jax.tree.leaves(jax.grad(loss, (0, 1))(*spoilt)):
        assert jnp.isfinite(grad).all()
        assert not grad[1].any()
        assert grad[0].any()


def test_two_view_terms_without_valid_examples_are_zero(views):
    terms = loss_terms_fn(
        shifted(views[0], 1), views[0], shifted(views[1], 1), views[1], [False] * 3
    )
    assert not any(terms.values())


@pytest.mark.parametrize("errors", [losses.normal_errors, losses.edge_errors])
@pytest.mark.parametrize("side", [0.0, 1e-12, 1e-7])
def test_surface_errors_have_bounded_gradients_for_a_collapsed_mesh(errors, side):
    collapsed = side * jax.random.normal(jax.random.key(0), (1, 4, 3))
    target = jax.random.normal(jax.random.key(1), (1, 4, 3))
    for truth in (target, collapsed):
        grad_fn = jax.grad(lambda verts, truth=truth: errors(verts, truth, TETRAHEDRON).mean())
        assert jnp.abs(grad_fn(collapsed)).max() <= 1 / losses.SHORTEST_EDGE


def test_two_view_terms_compare_bfloat16_in_float32(views):
    low = [jax.tree.map(lambda x: x.astype(jnp.bfloat16), shifted(view, 0.1)) for view in views]
    back = [jax.tree.map(lambda x: x.astype(jnp.float32), pred) for pred in low]
    for got, want in zip(
        loss_terms_fn(low[0], views[0], low[1], views[1]).values(),
        loss_terms_fn(back[0], views[0], back[1], views[1]).values(),
        strict=True,
    ):
        assert got.dtype == jnp.float32
        assert got == want


def test_total_weights_each_term():
    terms = {"mesh": jnp.array(2.0), "edge": jnp.array(3.0)}
    assert losses.total(terms, {"mesh": 1.0, "edge": 0.5}) == 3.5


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"mesh": 1.0}, "edge"),
        ({"mesh": 1.0, "edge": 1.0, "egde": 1.0}, "egde"),
    ],
)
def test_total_rejects_weights_that_do_not_fit(weights, named):
    terms = {"mesh": jnp.array(2.0), "edge": jnp.array(3.0)}
    with pytest.raises(UserError, match=named):
        losses.total(terms, weights)


def test_sum_reduction_is_eq_7_by_hand():
    """Two examples and a padding row; a face with legs 3 and 4 whose prediction is twice as large.

    Per example: L_mesh = 3 + 4, L_edge = 3 + 4 + 5, L_pose2D = 21 landmarks times 2 coordinates.
    """
    faces = np.array([[0, 1, 2]])
    triangle = np.array([[[0, 0, 0], [3, 0, 0], [0, 4, 0]]] * 3, np.float32)
    crop = np.tile(np.eye(2, 3, dtype=np.float32), (3, 1, 1))
    uv = np.full((3, 21, 2), 0.5, np.float32)
    view = View(np.zeros((3, 8, 8, 3), np.float32), uv, triangle, np.zeros(3, np.float32), crop)
    pred1 = Prediction(jnp.asarray(2 * triangle), jnp.asarray(uv + 1))
    pred2 = Prediction(jnp.asarray(2 * triangle), jnp.asarray(uv - 1))
    valid = np.array([True, True, False])
    reduce = losses.reduction("sum")
    terms = losses.two_view_terms(pred1, view, pred2, view, faces, valid, CROP_PX, reduce)
    want = {"mesh": 7, "pose2d": 42, "normal": 0, "edge": 12, "con3d": 0, "con2d": 84}
    for name, term in terms.items():
        np.testing.assert_allclose(term, want[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_sum_reduction_sums_normals_over_edges():
    """The edges of a unit right triangle that is tilted by 90 degrees about its first edge."""
    target = jnp.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    tilted = jnp.array([[[0.0, 0, 0], [1, 0, 0], [0, 0, 1]]])
    errors = losses.normal_errors(tilted, target, np.array([[0, 1, 2]]))
    total = losses.sum_over(errors, np.ones((1, 1, 1), bool))
    np.testing.assert_allclose(total, 0 + np.sqrt(0.5) + 1, rtol=1e-6)


def test_reductions_differ_by_the_elements_per_example(views):
    preds = [shifted(view, 0.1) for view in views]
    arguments = preds[0], views[0], preds[1], views[1], (True, False, True)
    means = loss_terms_fn(*arguments)
    sums = loss_terms_fn(*arguments, reduce=losses.reduction("sum"))
    elements = {"mesh": 12, "pose2d": 42, "normal": 12, "edge": 12, "con3d": 12, "con2d": 42}
    for name, term in sums.items():
        np.testing.assert_allclose(term, elements[name] * means[name], rtol=1e-5, err_msg=name)


def test_reduction_rejects_unknown_name():
    with pytest.raises(UserError, match="median"):
        losses.reduction("median")


def errors_of(name, pred, expected):
    if name == "l1":
        return losses.l1_errors(pred, expected["gt"])
    errors = {"normal": losses.normal_errors, "edge": losses.edge_errors}[name]
    return errors(pred, expected["gt"], expected["faces"])


@pytest.mark.parity
@pytest.mark.parametrize("name", ["l1", "normal", "edge"])
def test_errors_and_gradients_match_mobrecon(expected, name):
    value, grad = jax.value_and_grad(lambda pred: errors_of(name, pred, expected).mean())(
        jnp.asarray(expected["pred"])
    )
    np.testing.assert_allclose(value, expected[f"value_{name}"], rtol=1e-5)
    want = expected[f"grad_{name}"]
    np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parity
@pytest.mark.parametrize("mask", ["valid_vertex", "valid_sample"])
def test_masked_l1_matches_mobrecon(expected, mask):
    """MobRecon divides by the number of positive errors, as if zeros were not valid."""
    errors = errors_of("l1", expected["pred"], expected)
    got = losses.mean_over(errors, (expected[mask] > 0) & (errors > 0))
    np.testing.assert_allclose(got, expected[f"value_l1_{mask}"], rtol=1e-5)


@pytest.mark.parity
def test_masked_l1_without_valid_elements_matches_mobrecon(expected):
    errors = errors_of("l1", expected["pred"], expected)
    nothing = np.zeros((len(errors), 1, 1), bool)
    assert losses.mean_over(errors, nothing) == expected["value_l1_valid_none"]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["normal", "edge"])
def test_masked_surface_terms_match_mobrecon_up_to_the_divisor(expected, name):
    """MobRecon divides by all elements, masked or not; we divide by the valid ones."""
    valid = expected["valid_sample"] > 0
    got = losses.mean_over(errors_of(name, expected["pred"], expected), valid) * valid.mean()
    np.testing.assert_allclose(got, expected[f"value_{name}_valid_sample"], rtol=1e-5)


def reference_views(expected):
    """MobRecon's pair arrays, the channels of both views concatenated, as our views."""
    preds, views = [], []
    for i in (0, 1):
        verts, uv, matrix = (slice(k * i, k * (i + 1)) for k in (3, 2, 3))
        preds.append(Prediction(expected["verts_pair"][..., verts], expected["uv_pred"][..., uv]))
        views.append(
            View(
                image=np.zeros((len(expected["gt"]), 8, 8, 3), np.float32),
                landmarks_01=expected["uv_gt"][..., uv],
                verts=expected["verts_pair_gt"][..., verts],
                angle_rad=np.deg2rad(expected["aug_param"][:, 4 * i]),
                img_from_crop=expected["uv_trans"][..., matrix],
            )
        )
    return preds, views


@pytest.mark.parity
def test_two_view_terms_match_mobrecon(expected):
    preds, views = reference_views(expected)
    valid = np.ones(len(expected["gt"]), bool)
    terms = losses.two_view_terms(
        preds[0], views[0], preds[1], views[1], expected["faces"], valid, int(expected["size"])
    )
    # MobRecon weights the sums over two views by 0.05 and 0.5; ours are averages.
    weights = {"mesh": 1, "pose2d": 1, "normal": 0.1, "edge": 1, "con3d": 1, "con2d": 1}
    names = {"mesh": "verts", "pose2d": "joint_img"}
    for name, term in terms.items():
        want = expected[f"value_pair_{names.get(name, name)}"]
        np.testing.assert_allclose(weights[name] * term, want, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        losses.total(terms, weights), expected["value_pair_total"], rtol=1e-5
    )
    off = weights | {"con3d": 0, "con2d": 0}
    np.testing.assert_allclose(
        losses.total(terms, off), expected["value_pair_total_without_contrastive"], rtol=1e-5
    )
    np.testing.assert_allclose(terms["con3d"], expected["value_contrastive_3d"], rtol=1e-5)
    np.testing.assert_allclose(terms["con2d"], expected["value_contrastive_2d"], rtol=1e-5)


@pytest.mark.parity
def test_con3d_of_mobrecons_exact_pair_is_zero(expected):
    _, (view1, view2) = reference_views(expected)
    errors = losses.con3d_errors(view1.verts, view2.verts, view2.angle_rad - view1.angle_rad)
    assert errors.mean() < 1e-7 + expected["value_contrastive_3d_of_exact_gt"]


@pytest.mark.parity
def test_single_view_total_matches_mobrecon(expected):
    terms = {
        name: errors_of(name, expected["pred"], expected).mean()
        for name in ("l1", "normal", "edge")
    }
    got = losses.total(terms, {"l1": 1.0, "normal": 0.1, "edge": 1.0})
    np.testing.assert_allclose(got, expected["value_single_total_without_uv"], rtol=1e-5)
