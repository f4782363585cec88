"""Every system of the README, reduced: built, trained for a step and evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.systems import SYSTEMS, load_config, multiply_adds, size_of
from m3dhmr_jax.data.augment import AugmentConfig, eval_view
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict, to_camera
from m3dhmr_jax.tasks import create_task
from m3dhmr_jax.training.step import Objective, TrainState, make_train_step

# Rows that are the same system under different names are run once.
NAMES = {str(load_config(system.config)): system.config for system in SYSTEMS}.values()
REDUCED = {
    "model.width": 4,
    "model.encoding": 8,
    "model.channels": (8, 8, 8, 4),
    "model.spiral_length": 2,
    "model.roi_length": 2,
    "model.roi_dilation": 1,
}


def abstract(config):
    """The task with an abstract network, and the shapes of its arrays."""
    task = create_task(config, load_builtin(), abstract=True)
    return task, task.network.params, task.network.stats


def active(rng, shape):
    """Parameters that leave no unit inactive: kernels average their inputs, biases are 1."""
    if len(shape) == 1:
        return rng.normal(1.0, 0.1, shape)
    return np.abs(rng.normal(0, 1 / np.prod(shape[:-1]), shape))


@pytest.fixture(scope="module")
def to_hands():
    """From predictions to hands in front of the camera: one program for all systems."""
    regressor = load_builtin().joint_regressor

    @jax.jit
    def to_hands(prediction, view, batch):
        crop_px = view.image.shape[1]
        return to_camera(prediction, view.img_from_crop, batch.intrinsics, regressor, crop_px)

    return to_hands


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_system_takes_a_step_and_is_evaluated(name, hand_batch, to_hands):
    config = load_config(name)
    config.update_from_flattened_dict(REDUCED)
    if "ablation" in name:  # All have the backbone of configs/resnet18.py, which is here as it is.
        config.model.blocks = (1, 1, 1, 1)
    task, params, stats = abstract(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(active(rng, x.shape), x.dtype), params)
    stats = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), stats)
    optimizer = optax.sign_sgd(1e-2)  # Moves every parameter that has a gradient.
    train_step = make_train_step(
        task.network.graphdef,
        task.loss_terms_fn,
        optimizer,
        Objective(dict(config.loss.weights)),
        AugmentConfig(task.network.image_size, **config.augment),
        ema_decay=0.0,
    )

    def step_and_predict(state, batch, key, image):
        state, terms = train_step(state, batch, key)
        return state, terms, predict(task.network.eval_graphdef, state.params, state.stats, image)

    state = TrainState(jnp.zeros((), jnp.int32), params, stats, optimizer.init(params), None)
    view = eval_view(hand_batch, task.network.image_size)
    arguments = state, hand_batch, jax.random.key(0), view.image
    after, terms, prediction = jax.jit(step_and_predict)(*arguments)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((after, terms)))
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), params, after.params)
    assert all(jax.tree.leaves(moved)), moved
    hands = to_hands(prediction, view, hand_batch)
    scored = task.scores(task.error_fn(hands, hand_batch), hand_batch.valid)
    assert np.isfinite(list(scored.values())).all()
    assert set(task.reported_metrics) <= set(scored)


HEADS = {
    "configs/resnet18.py": {"kernel": (27, 32, 3), "bias": (3,)},
    "configs/ablation.py:decoder=spiral,roi=false": {"kernel": (9, 32, 3), "bias": (3,)},
    "configs/ablation.py:roi=false": {"kernel": (9, 32, 3), "bias": (3,)},
    "configs/mobrecon.py:backbone=resnet18": {"depthwise": (9, 32), "pointwise": (32, 3)},
}


@pytest.mark.parametrize("name", HEADS)
def test_head_has_the_shapes_of_its_system(name):
    _, params, _ = abstract(load_config(name))
    assert {key: leaf.shape for key, leaf in params["decoder"]["head"].items()} == HEADS[name]


def test_multiply_adds_counts_convolutions_and_products():
    kernel, matrix = jnp.ones((3, 3, 2, 5)), jnp.ones((5, 7))

    @jax.jit
    def program(x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=dimensions)
        return 2.0 * jnp.einsum("bhwc,cd->bhwd", y, matrix)

    traced = jax.make_jaxpr(program)(jnp.ones((1, 8, 8, 2)))
    positions = 4 * 4
    assert multiply_adds(traced.jaxpr) == positions * (3 * 3 * 2 * 5 + 5 * 7 + 7)


@pytest.mark.long
def test_size_of_grows_with_kernels_by_their_parameters():
    two = size_of(load_config("configs/ablation.py:kernels=2"))
    _, params, _ = abstract(load_config("configs/ablation.py:kernels=4"))
    widths = ((256, 256), (256, 128), (128, 64), (64, 32))
    per_kernel = sum(9 * c + c + c * d + d + c // 2 + 1 for c, d in widths)
    four = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert four - two.parameters == 2 * per_kernel
    assert two.multiply_adds > two.parameters  # Convolutions use theirs at many positions.
