import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import resnet18
from m3dhmr_jax import losses
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.training.step import Objective, init_state, make_train_step, skipping_nonfinite
from tests.toy import CROP_PX, toy_network

CONSISTENCY = ("con3d", "con2d")
TERMS = ("mesh", "pose2d", "normal", "edge", "con3d", "con2d")
WEIGHTS = {name: 1e3 if name in CONSISTENCY else 1.0 for name in TERMS}
EMA_DECAY = 0.75
KEY = jax.random.key(0)


def gradient_descent():
    """Gradient descent at a learning rate of 1; its state is the gradient of the last step."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, _, params=None: (jax.tree.map(jnp.negative, grads), grads),
    )


@pytest.fixture(scope="module")
def network():
    return toy_network(load_builtin())


@pytest.fixture(scope="module")
def start(network):
    return init_state(network.params, network.stats, gradient_descent(), EMA_DECAY)


def make_step(network, accumulate_steps=1):
    """Consistency counts from the second step on, and then a thousandfold."""
    step = make_train_step(
        network.graphdef,
        functools.partial(losses.two_view_terms, faces=load_builtin().faces, crop_px=CROP_PX),
        gradient_descent(),
        Objective(WEIGHTS, dict.fromkeys(CONSISTENCY, 1)),
        AugmentConfig(CROP_PX, **resnet18.get_config().augment),
        EMA_DECAY,
        accumulate_steps,
    )
    return jax.jit(step)


@pytest.fixture(scope="module")
def train_step(network):
    return make_step(network)


@pytest.fixture(scope="module")
def accumulating_step(network):
    return make_step(network, accumulate_steps=2)


@pytest.fixture(scope="module")
def after(train_step, start, hand_batch):
    return train_step(start, hand_batch, KEY)


def named_leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def assert_same_bits(these, those):
    for name, leaf in named_leaves(these).items():
        np.testing.assert_array_equal(leaf, named_leaves(those)[name], err_msg=name)


def assert_close(these, those):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, these, those)


def test_train_step_gives_every_parameter_a_finite_gradient(after):
    state, terms = after
    grads = named_leaves(state.opt_state)
    assert not [name for name, grad in grads.items() if not jnp.abs(grad).max() > 0]
    assert not [name for name, grad in grads.items() if not jnp.isfinite(grad).all()]
    assert set(terms) == set(TERMS)
    assert all(term > 0 for term in terms.values())


def test_train_step_moves_statistics(start, after):
    assert (start.stats["calls"], after[0].stats["calls"]) == (0, 1)


def test_train_step_weights_errors_to_labels_by_their_quality(train_step, start, hand_batch, after):
    halved = hand_batch._replace(quality=np.full(4, 0.5, np.float32))
    terms = train_step(start, halved, KEY)[1]
    for name, term in after[1].items():
        factor = 1.0 if name in CONSISTENCY else 0.5
        np.testing.assert_allclose(terms[name], factor * term, rtol=1e-5, err_msg=name)


def test_train_step_follows_the_gradient_and_counts(start, after):
    state, _ = after
    assert state.step == 1
    want = jax.tree.map(jnp.subtract, start.params, state.opt_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, want)


def test_train_step_updates_ema(start, after):
    state, _ = after
    want = jax.tree.map(
        lambda a, b: EMA_DECAY * a + (1 - EMA_DECAY) * b, start.params, state.params
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.ema_params, want)
    assert state.eval_params is state.ema_params
    assert state._replace(ema_params=None).eval_params is state.params


def test_train_step_is_deterministic(train_step, start, hand_batch, after):
    assert_same_bits(train_step(start, hand_batch, KEY), after)


def test_train_step_draws_crops_from_step_and_run(train_step, start, hand_batch, after):
    other_run = train_step(start, hand_batch, jax.random.key(1))
    other_step = train_step(start._replace(step=jnp.array(7)), hand_batch, KEY)
    assert len({float(x[1]["mesh"]) for x in (after, other_run, other_step)}) == 3


def test_train_step_counts_consistency_from_its_start_step(train_step, start, hand_batch, after):
    later, _ = train_step(start._replace(step=jnp.array(1)), hand_batch, KEY)
    assert optax.tree.norm(later.opt_state) > 20 * optax.tree.norm(after[0].opt_state)


def test_train_step_ignores_labels_of_invalid_examples(train_step, start, hand_batch):
    batch = hand_batch._replace(valid=np.array([True, True, False, True]))
    joints_m, verts_m = batch.joints_m.copy(), batch.verts_m.copy()
    joints_m[2], verts_m[2] = np.nan, 1e6
    spoilt = batch._replace(joints_m=joints_m, verts_m=verts_m)
    assert_same_bits(train_step(start, spoilt, KEY), train_step(start, batch, KEY))


def test_skipping_nonfinite_counts_the_step_only(train_step, start, hand_batch, after):
    step = skipping_nonfinite(train_step)
    verts_m = hand_batch.verts_m.copy()
    verts_m[1, 5] = np.nan
    state, terms = step(start, hand_batch._replace(verts_m=verts_m), KEY)
    assert state.step == 1
    assert_same_bits(state._replace(step=start.step), start)
    assert terms["skipped"] == 1
    assert jnp.isnan(terms["mesh"])
    state, terms = step(start, hand_batch, KEY)
    assert_same_bits(state, after[0])
    assert terms.pop("skipped") == 0
    assert_same_bits(terms, after[1])


def test_skipping_nonfinite_checks_the_next_state(start, hand_batch):
    """The terms are finite, the next parameters are not."""

    def overflowing(state, batch, key):
        params = jax.tree.map(lambda leaf: leaf / 0, state.params)
        return state._replace(step=state.step + 1, params=params), {"mesh": jnp.ones(())}

    state, terms = skipping_nonfinite(overflowing)(start, hand_batch, KEY)
    assert terms["skipped"] == 1
    assert_same_bits(state._replace(step=start.step), start)


@pytest.mark.parametrize("valid", [(1, 1, 1, 1), (1, 0, 1, 1), (0, 1, 0, 1), (0, 0, 0, 0)])
def test_microbatches_have_the_gradient_of_the_full_batch(
    train_step, accumulating_step, start, hand_batch, valid
):
    """Padding does not count, wherever it falls: the third mask empties the first microbatch."""
    batch = hand_batch._replace(valid=np.array(valid, bool))
    full, split = (step(start, batch, KEY) for step in (train_step, accumulating_step))
    assert (optax.tree.norm(full[0].opt_state) > 0) == any(valid)
    assert_close(split[0].opt_state, full[0].opt_state)
    assert_close(split[1], full[1])
    assert (full[0].stats["calls"], split[0].stats["calls"]) == (1, 2)


def test_init_state_without_decay_has_no_ema(network):
    state = init_state(network.params, network.stats, optax.sgd(1.0), 0.0)
    assert state.ema_params is None
    assert state.eval_params is state.params


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_init_state_rejects_ema_decay(network, decay):
    with pytest.raises(UserError, match=f"optim.ema_decay={decay}"):
        init_state(network.params, network.stats, optax.sgd(1.0), decay)


def some_terms():
    return {name: jnp.array(float(i + 1)) for i, name in enumerate(TERMS)}


def test_objective_is_the_weighted_sum_of_terms_that_count():
    objective = Objective(
        dict(zip(TERMS, (1.0, 0.5, 0.1, 0.0, 2.0, 1.0), strict=True)), {"con3d": 10, "con2d": 10}
    )
    early, late = (objective.total(some_terms(), jnp.array(step)) for step in (9, 10))
    np.testing.assert_allclose(early, 1 + 0.5 * 2 + 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(late - early, 2 * 5 + 6, rtol=1e-6)


def test_objective_ignores_nan_before_the_start_step():
    objective = Objective(dict.fromkeys(TERMS, 1.0), {"con3d": 10})
    terms = some_terms() | {"con3d": jnp.array(jnp.nan)}
    assert jnp.isfinite(objective.total(terms, jnp.array(9)))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_objective_rejects_weight(weight):
    with pytest.raises(UserError, match=f"loss.weights.edge={weight}"):
        Objective({"edge": weight})


def test_objective_names_unknown_and_missing_weights():
    weights = dict.fromkeys((*TERMS[:-1], "con4d"), 1.0)
    with pytest.raises(ValueError, match=r"con2d.*con4d"):
        Objective(weights).total(some_terms(), jnp.array(0))
