import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import resnet18
from m3dhmr_jax import losses
from m3dhmr_jax.camera.silhouette import NO_EXTENT, SilhouetteExtent, silhouette_extent
from m3dhmr_jax.data.augment import AugmentConfig, augmented_view, eval_view
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.inference import (
    GPU_OPTIONS,
    compiler_options,
    hand_errors,
    make_crop_step,
    make_landmark_step,
    make_predict_step,
    predict,
    to_camera,
)
from m3dhmr_jax.metrics.freihand import batch_metrics
from m3dhmr_jax.metrics.landmarks import landmark_errors_px, project_joints
from m3dhmr_jax.models.heads import soft_argmax
from m3dhmr_jax.types import LandmarkPrediction, Prediction


@pytest.fixture(scope="module")
def regressor():
    return load_builtin().joint_regressor


@pytest.fixture(scope="module")
def predict_step(tiny_network, regressor):
    return make_predict_step(tiny_network.eval_graphdef, regressor, tiny_network.image_size)


@pytest.fixture(scope="module")
def run_network():
    """`predict`, compiled once for each graphdef."""
    return jax.jit(predict, static_argnums=0)


def test_predict_step_is_deterministic_and_pure(predict_step, tiny_network, hand_batch):
    arrays = tiny_network.params, tiny_network.stats
    before = jax.tree.map(np.array, arrays)
    first, second = (predict_step(*arrays, hand_batch) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, before, arrays)


def test_predict_is_independent_of_the_rest_of_the_batch(run_network, tiny_network, hand_batch):
    """Stored statistics are used, not those of the batch."""
    net, image = tiny_network, eval_view(hand_batch, 64).image
    others = jnp.concatenate([image[:1], 0.5 * image[:0:-1]])
    first, second = (
        run_network(net.eval_graphdef, net.params, net.stats, x) for x in (image, others)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a[0], b[0], atol=1e-5)
    assert float(jnp.abs(first.verts[1] - second.verts[1]).max()) > 1e-6


def test_graphdefs_of_training_and_inference_differ_in_the_statistics(
    run_network, tiny_network, hand_batch
):
    """Inference uses the stored statistics; training does not."""
    net, image = tiny_network, eval_view(hand_batch, 64).image
    wider = jax.tree.map(lambda leaf: 4 * leaf + 0.1, net.stats)
    inferred = [
        run_network(net.eval_graphdef, net.params, stats, image) for stats in (net.stats, wider)
    ]
    trained = [run_network(net.graphdef, net.params, stats, image) for stats in (net.stats, wider)]
    assert float(jnp.abs(inferred[0].verts - inferred[1].verts).max()) > 1e-5
    np.testing.assert_array_equal(trained[0].verts, trained[1].verts)


@pytest.mark.parametrize("size", [64, 128])
def test_to_camera_inverts_eval_view(hand_batch, regressor, size):
    """Within 0.1 mm for hands at a distance of 0.6 m."""
    view = eval_view(hand_batch, size)
    truth = Prediction(view.verts, view.landmarks_01)
    hands = to_camera(truth, view.img_from_crop, hand_batch.intrinsics, regressor, size)
    np.testing.assert_allclose(hands.joints_m, hand_batch.joints_m, atol=1e-4)
    np.testing.assert_allclose(hands.verts_m, hand_batch.verts_m, atol=1e-4)
    projected = hand_batch.joints_m @ hand_batch.intrinsics.transpose(0, 2, 1)
    np.testing.assert_allclose(
        hands.landmarks_px, projected[..., :2] / projected[..., 2:], atol=1e-2
    )


def test_to_camera_inverts_unrotated_augmented_view(hand_batch, regressor):
    config = AugmentConfig(96, **{**resnet18.get_config().augment, "rotation_probability": 0.0})
    keys = jax.random.split(jax.random.key(0), 4)
    view = jax.jit(functools.partial(augmented_view, config=config))(hand_batch, keys)
    truth = Prediction(view.verts, view.landmarks_01)
    hands = to_camera(truth, view.img_from_crop, hand_batch.intrinsics, regressor, 96)
    np.testing.assert_allclose(hands.joints_m, hand_batch.joints_m, atol=1e-4)


def test_predict_step_places_the_prediction_in_camera_space(
    predict_step, run_network, tiny_network, hand_batch, regressor
):
    size, arrays = tiny_network.image_size, (tiny_network.params, tiny_network.stats)
    view = eval_view(hand_batch, size)
    prediction = run_network(tiny_network.eval_graphdef, *arrays, view.image)
    want = to_camera(prediction, view.img_from_crop, hand_batch.intrinsics, regressor, size)
    got = predict_step(*arrays, hand_batch)
    np.testing.assert_allclose(got.landmarks_px, want.landmarks_px, atol=1e-2)
    # An untrained mesh is almost a point, so its depth is ill-conditioned; its shape is not.
    for hands in (got, want):
        assert hands.joints_m.shape == (4, 21, 3)
    np.testing.assert_allclose(
        got.joints_m - got.joints_m[:, :1], want.joints_m - want.joints_m[:, :1], atol=1e-5
    )


def test_hand_errors_are_distances_in_camera_space(hand_batch, regressor):
    view = eval_view(hand_batch, 64)
    truth = Prediction(view.verts, view.landmarks_01)
    hands = to_camera(truth, view.img_from_crop, hand_batch.intrinsics, regressor, 64)
    moved = hands._replace(joints_m=hands.joints_m + jnp.array([0, 0.003, 0.004])[None, None])
    np.testing.assert_allclose(hand_errors(moved, hand_batch).joint_errors_m, 0.005, atol=2e-4)


def test_landmark_errors_px_scale_with_image_size(hand_batch):
    """In an image of half the size an error counts double."""
    true_px = project_joints(hand_batch.joints_m, hand_batch.intrinsics)
    errors_px = landmark_errors_px(true_px + jnp.array([3.0, 4.0])[None, None], hand_batch)
    np.testing.assert_allclose(errors_px, np.full((4, 21), 5.0), atol=1e-3)
    small = hand_batch._replace(image=hand_batch.image[:, ::2, ::2])
    errors_px = landmark_errors_px(true_px + jnp.array([3.0, 4.0])[None, None], small)
    np.testing.assert_allclose(errors_px, np.full((4, 21), 10.0), atol=1e-3)


class MiddleOfTheCrop(nnx.Module):
    def __call__(self, image):
        b = len(image)
        return LandmarkPrediction(jnp.zeros((b, 8, 8, 21)), jnp.full((b, 21, 2), 0.5))


def test_landmark_step_maps_crop_centre_to_image_centre(hand_batch):
    landmarks_px = make_landmark_step(nnx.graphdef(MiddleOfTheCrop()), 64)({}, {}, hand_batch)
    np.testing.assert_allclose(landmarks_px, np.full((4, 21, 2), 112.0), atol=1e-3)


def boxed(batch, scale=1.0):
    """True hands with landmarks of the wrong scale, and their silhouettes' extents."""
    view = eval_view(batch, 64)
    centre = view.landmarks_01.mean(axis=1, keepdims=True)
    landmarks_01 = centre + scale * (view.landmarks_01 - centre)
    masks = np.zeros((len(batch.image), *batch.image.shape[1:3]), bool)
    for mask, verts_m, k in zip(masks, batch.verts_m, batch.intrinsics, strict=True):
        x, y, z = k @ verts_m.T
        mask[np.round(y / z).astype(int), np.round(x / z).astype(int)] = True
    extents = SilhouetteExtent(*map(np.stack, zip(*map(silhouette_extent, masks), strict=True)))
    return Prediction(view.verts, landmarks_01), view.img_from_crop, extents


def test_to_camera_uses_silhouettes(hand_batch, regressor):
    """Landmarks 10 % too small put hands too far away; their masks correct that."""
    prediction, img_from_crop, extents = boxed(hand_batch, 0.9)
    k = hand_batch.intrinsics

    def errors_m(extents):
        hands = to_camera(prediction, img_from_crop, k, regressor, 64, extents)
        return np.linalg.norm(hands.joints_m - hand_batch.joints_m, axis=-1).mean(axis=1)

    without, with_masks = errors_m(None), errors_m(extents)
    assert without.min() > 0.04
    assert with_masks.max() < 0.01
    mixed = jax.tree.map(lambda some, none: np.stack([*some[:2], none, none]), extents, NO_EXTENT)
    want = np.concatenate([with_masks[:2], without[2:]])
    np.testing.assert_allclose(errors_m(mixed), want, atol=1e-4)


class TrueHands(nnx.Module):
    """Predicts fixed hands for any crops."""

    def __init__(self, prediction):
        self.prediction = nnx.data(jax.tree.map(nnx.Variable, prediction))

    def __call__(self, image):
        return jax.tree.map(
            lambda leaf: leaf[...],
            self.prediction,
            is_leaf=lambda x: isinstance(x, nnx.Variable),
        )


def test_crop_step_uses_extents(hand_batch, regressor):
    prediction, img_from_crop, extents = boxed(hand_batch, 0.9)
    graphdef, state = nnx.split(TrueHands(prediction))
    step = make_crop_step(graphdef, regressor, 64)
    crops, k = np.zeros((4, 64, 64, 3), np.uint8), hand_batch.intrinsics
    want = to_camera(prediction, img_from_crop, k, regressor, 64, extents)
    hands = step(state, {}, crops, img_from_crop, k, extents)
    np.testing.assert_allclose(hands.verts_m, want.verts_m, atol=1e-4)


def products(function, *arguments, platform):
    """The lines of a program, lowered for a platform, that multiply matrices."""
    program = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
    return [line for line in program.as_text().splitlines() if "dot_general" in line]


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_geometry_is_computed_in_full_precision(hand_batch, regressor, platform):
    """By default TPUs round factors to bfloat16 and GPUs to TF32: up to 0.6 mm."""
    hand = load_builtin()
    prediction, img_from_crop, extents = boxed(hand_batch)
    view = eval_view(hand_batch, 64)

    def camera(prediction, extents):
        k = hand_batch.intrinsics
        return to_camera(prediction, img_from_crop, k, regressor, 64, extents)

    def terms(prediction):
        valid = jnp.ones(4, bool)
        return losses.two_view_terms(prediction, view, prediction, view, hand.faces, valid, 64)

    def errors(verts_m):
        true_m = hand_batch.joints_m, hand_batch.verts_m
        return batch_metrics(hand_batch.joints_m, verts_m, *true_m)

    rotations, shape = jnp.zeros((16, 3, 3)), jnp.zeros(len(hand.shape_basis))
    lines = products(camera, prediction, extents, platform=platform)
    assert lines
    lines += products(functools.partial(pose_hand, hand), rotations, shape, platform=platform)
    lines += products(jax.grad(lambda x: sum(terms(x).values())), prediction, platform=platform)
    lines += products(soft_argmax, jnp.zeros((2, 4, 4, 21)), platform=platform)
    if platform == "cuda":  # The decomposition in the alignment is XLA's own on a TPU.
        lines += products(errors, hand_batch.verts_m, platform=platform)
    assert [line for line in lines if "precision = [HIGHEST, HIGHEST]" not in line] == []


def test_compiler_options_are_known_to_this_xla(monkeypatch):
    """XLA checks all names, also those for other backends."""
    assert compiler_options() is None  # On a CPU.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == GPU_OPTIONS


def test_compiler_options_fall_back_to_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    options = compiler_options(GPU_OPTIONS | {"xla_gpu_no_such_option": 1})
    assert options is None
    assert jax.jit(jnp.negative, compiler_options=options)(1.0) == -1
