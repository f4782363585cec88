import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import resnet18
from m3dhmr_jax.data.augment import AugmentConfig, augmented_view, eval_view
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import (
    compiler_options,
    landmark_errors_px,
    make_eval_step,
    make_landmark_step,
    predict,
    project_joints,
    to_camera,
)
from m3dhmr_jax.types import LandmarkPrediction, Prediction


@pytest.fixture(scope="module")
def regressor():
    return load_builtin().joint_regressor


@pytest.fixture(scope="module")
def eval_step(tiny_network, regressor):
    return make_eval_step(tiny_network.eval_graphdef, regressor, tiny_network.image_size)


@pytest.fixture(scope="module")
def answer(tiny_network):
    """The jitted network in use, at any batch size."""
    net = tiny_network
    run = jax.jit(lambda params, stats, image: predict(net.eval_graphdef, params, stats, image))
    return lambda image: run(net.params, net.stats, image)


def rows(batch, chosen):
    return type(batch)(*(leaf[chosen] for leaf in batch))


def test_the_same_evaluation_twice_gives_the_same_bits(eval_step, tiny_network, hand_batch):
    arrays = tiny_network.params, tiny_network.stats
    before = jax.tree.map(np.array, arrays)
    first, second = (eval_step(*arrays, hand_batch) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, before, arrays)


def test_examples_do_not_see_each_other(answer, hand_batch):
    """Batch size changes no answer: statistics are read, not made."""
    image = eval_view(hand_batch, 64).image
    together = answer(image)
    for row in range(4):
        alone = answer(image[row : row + 1])
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a[0], b[row], atol=1e-5)
    assert float(jnp.abs(together.verts[0] - together.verts[1]).max()) > 1e-6


def test_the_two_views_of_the_parameters_differ_only_in_the_statistics(tiny_network, hand_batch):
    """Evaluation follows the stored statistics; training does not."""
    net, image = tiny_network, eval_view(hand_batch, 64).image
    wider = jax.tree.map(lambda leaf: 4 * leaf + 0.1, net.stats)
    run = jax.jit(predict, static_argnums=0)
    used = [run(net.eval_graphdef, net.params, stats, image) for stats in (net.stats, wider)]
    trained = [run(net.graphdef, net.params, stats, image) for stats in (net.stats, wider)]
    assert float(jnp.abs(used[0].verts - used[1].verts).max()) > 1e-5
    np.testing.assert_array_equal(trained[0].verts, trained[1].verts)


@pytest.mark.parametrize("size", [64, 128])
def test_a_true_answer_lands_in_its_true_place(hand_batch, regressor, size):
    """Metres from the crop's units: the hands stand 0.6 m away and come back within 0.1 mm."""
    view = eval_view(hand_batch, size)
    truth = Prediction(view.verts, view.landmarks_01)
    hands = to_camera(truth, view.img_from_crop, hand_batch.intrinsics, regressor, size)
    np.testing.assert_allclose(hands.joints_m, hand_batch.joints_m, atol=1e-4)
    np.testing.assert_allclose(hands.verts_m, hand_batch.verts_m, atol=1e-4)
    seen = hand_batch.joints_m @ hand_batch.intrinsics.transpose(0, 2, 1)
    np.testing.assert_allclose(hands.landmarks_px, seen[..., :2] / seen[..., 2:], atol=1e-2)


def test_unturned_training_crops_come_back_too(hand_batch, regressor):
    config = AugmentConfig(96, **{**resnet18.get_config().augment, "rotation_probability": 0.0})
    keys = jax.random.split(jax.random.key(0), 4)
    view = augmented_view(hand_batch, keys, config)
    truth = Prediction(view.verts, view.landmarks_01)
    hands = to_camera(truth, view.img_from_crop, hand_batch.intrinsics, regressor, 96)
    np.testing.assert_allclose(hands.joints_m, hand_batch.joints_m, atol=1e-4)


def test_an_evaluation_step_scores_the_answer_in_camera_space(
    eval_step, answer, tiny_network, hand_batch, regressor
):
    size = tiny_network.image_size
    errors = eval_step(tiny_network.params, tiny_network.stats, hand_batch)
    view = eval_view(hand_batch, size)
    hands = to_camera(
        answer(view.image), view.img_from_crop, hand_batch.intrinsics, regressor, size
    )
    off_m = np.linalg.norm(np.asarray(hands.joints_m) - hand_batch.joints_m, axis=-1)
    np.testing.assert_allclose(errors.joints_m, off_m, rtol=1e-2)  # An untrained answer shakes.
    centred = np.asarray(hands.joints_m) - np.asarray(hands.joints_m)[:, :1]
    off_m = np.linalg.norm(centred - (hand_batch.joints_m - hand_batch.joints_m[:, :1]), axis=-1)
    np.testing.assert_allclose(errors.xyz_rel_m, off_m, rtol=1e-3, atol=1e-4)


def test_landmark_errors_are_distances_in_photos_of_freihands_size(hand_batch):
    """In a photo of half the size a pixel is worth two."""
    true_px = project_joints(hand_batch.joints_m, hand_batch.intrinsics)
    off_px = landmark_errors_px(true_px + jnp.array([3.0, 4.0])[None, None], hand_batch)
    np.testing.assert_allclose(off_px, np.full((4, 21), 5.0), atol=1e-3)
    small = hand_batch._replace(image=hand_batch.image[:, ::2, ::2])
    off_px = landmark_errors_px(true_px + jnp.array([3.0, 4.0])[None, None], small)
    np.testing.assert_allclose(off_px, np.full((4, 21), 10.0), atol=1e-3)


class MiddleOfTheCrop(nnx.Module):
    def __call__(self, image):
        b = len(image)
        return LandmarkPrediction(jnp.zeros((b, 8, 8, 21)), jnp.full((b, 21, 2), 0.5))


def test_the_middle_of_the_evaluation_crop_is_the_middle_of_the_photo(hand_batch):
    landmarks_px = make_landmark_step(nnx.graphdef(MiddleOfTheCrop()), 64)({}, {}, hand_batch)
    np.testing.assert_allclose(landmarks_px, np.full((4, 21, 2), 112.0), atol=1e-3)


def test_the_options_for_a_gpu_are_ones_that_the_compiler_knows(monkeypatch):
    """It refuses what it does not know, whatever it compiles for."""
    assert compiler_options() is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
    assert double(jnp.ones(())) == 2
    with pytest.raises(Exception, match="xla_gpu_no_such_option"):
        jax.jit(lambda x: 3 * x, compiler_options={"xla_gpu_no_such_option": 1})(jnp.ones(()))
