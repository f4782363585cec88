import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import resnet18
from m3dhmr_jax import losses
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.training.step import Objective, init_state, make_train_step, skipping_nonfinite

CONSISTENCY = ("con3d", "con2d")
TERMS = ("mesh", "pose2d", "normal", "edge", "con3d", "con2d")
LOUD = {name: 1e3 if name in CONSISTENCY else 1.0 for name in TERMS}
DECAY = 0.75
KEY = jax.random.key(0)


def remembering_descent():
    """Gradient descent at rate 1; its state is the gradient of the last step."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, _, params=None: (jax.tree.map(jnp.negative, grads), grads),
    )


@pytest.fixture(scope="module")
def start(tiny_network):
    return init_state(tiny_network.params, tiny_network.stats, remembering_descent(), DECAY)


@pytest.fixture(scope="module")
def train_step(tiny_network):
    """Consistency counts from the second step on, and then a thousandfold."""
    step = make_train_step(
        tiny_network.graphdef,
        functools.partial(
            losses.two_view_terms, faces=load_builtin().faces, crop_px=tiny_network.image_size
        ),
        remembering_descent(),
        Objective(LOUD, dict.fromkeys(CONSISTENCY, 1)),
        AugmentConfig(tiny_network.image_size, **resnet18.get_config().augment),
        DECAY,
    )
    return jax.jit(step)


@pytest.fixture(scope="module")
def after(train_step, start, hand_batch):
    return train_step(start, hand_batch, KEY)


def named_leaves(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def assert_same_bits(these, those):
    for name, leaf in named_leaves(these).items():
        np.testing.assert_array_equal(leaf, named_leaves(those)[name], err_msg=name)


def size_of(tree):
    return float(optax.tree.norm(tree))


def test_every_parameter_gets_a_gradient_and_it_is_finite(after):
    state, terms = after
    grads = named_leaves(state.opt_state)
    assert not [name for name, grad in grads.items() if not jnp.abs(grad).max() > 0]
    assert not [name for name, grad in grads.items() if not jnp.isfinite(grad).all()]
    assert set(terms) == set(TERMS)
    assert all(term > 0 for term in terms.values())


def test_batch_statistics_move_all_of_them(start, after):
    before, now = named_leaves(start.stats), named_leaves(after[0].stats)
    assert not [name for name, leaf in now.items() if jnp.array_equal(leaf, before[name])]


def test_a_step_follows_the_slope_and_is_counted(start, after):
    state, _ = after
    assert state.step == 1
    want = jax.tree.map(jnp.subtract, start.params, state.opt_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, want)


def test_the_running_mean_goes_part_of_the_way(start, after):
    state, _ = after
    want = jax.tree.map(lambda a, b: DECAY * a + (1 - DECAY) * b, start.params, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.ema_params, want)
    assert state.eval_params is state.ema_params
    assert state._replace(ema_params=None).eval_params is state.params


def test_the_same_step_twice_gives_the_same_bits(train_step, start, hand_batch, after):
    assert_same_bits(train_step(start, hand_batch, KEY), after)


def test_another_step_and_another_run_see_other_crops(train_step, start, hand_batch, after):
    other_run = train_step(start, hand_batch, jax.random.key(1))
    other_step = train_step(start._replace(step=jnp.array(7)), hand_batch, KEY)
    assert len({float(x[1]["mesh"]) for x in (after, other_run, other_step)}) == 3


def test_consistency_counts_from_its_step_on(train_step, start, hand_batch, after):
    later, _ = train_step(start._replace(step=jnp.array(1)), hand_batch, KEY)
    assert size_of(later.opt_state) > 20 * size_of(after[0].opt_state)


def test_labels_of_examples_that_are_not_valid_change_nothing(train_step, start, hand_batch):
    batch = hand_batch._replace(valid=np.array([True, True, False, True]))
    spoilt_xyz, spoilt_verts = batch.joints_m.copy(), batch.verts_m.copy()
    spoilt_xyz[2], spoilt_verts[2] = np.nan, 1e6
    spoilt = batch._replace(joints_m=spoilt_xyz, verts_m=spoilt_verts)
    assert_same_bits(train_step(start, spoilt, KEY), train_step(start, batch, KEY))


def test_a_batch_that_is_not_finite_may_be_skipped(train_step, start, hand_batch, after):
    """Nothing of it stays but the count of steps; every other batch is learned as ever."""
    step = skipping_nonfinite(train_step)
    spoilt_m = hand_batch.verts_m.copy()
    spoilt_m[1, 5] = np.nan
    state, terms = step(start, hand_batch._replace(verts_m=spoilt_m), KEY)
    assert state.step == 1
    assert_same_bits(state._replace(step=start.step), start)
    assert terms["skipped"] == 1
    assert jnp.isnan(terms["mesh"])
    state, terms = step(start, hand_batch, KEY)
    assert_same_bits(state, after[0])
    assert terms.pop("skipped") == 0
    assert_same_bits(terms, after[1])


def test_a_gradient_that_is_not_finite_is_skipped_too(start, hand_batch):
    """The terms are finite, the next parameters are not."""

    def overflowing(state, batch, key):
        params = jax.tree.map(lambda leaf: leaf / 0, state.params)
        return state._replace(step=state.step + 1, params=params), {"mesh": jnp.ones(())}

    state, terms = skipping_nonfinite(overflowing)(start, hand_batch, KEY)
    assert terms["skipped"] == 1
    assert_same_bits(state._replace(step=start.step), start)


class Linear(nnx.Module):
    """Landmarks as a linear map of the image's mean colour: nothing that looks across a batch."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.linspace(-1.0, 1.0, 3 * 42).reshape(3, 42))
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, image):
        self.seen[...] = self.seen[...] + 1
        return (image.mean(axis=(1, 2)) @ self.kernel[...]).reshape(-1, 21, 2)


def linear_step(accumulate_steps, hand_batch):
    def loss_terms_fn(pred1, view1, pred2, view2, valid):
        errors = (losses.l1_errors(pred1, view1.landmarks_01), (pred1 - pred2) ** 2)
        return {
            name: losses.mean_over(x, valid[:, None, None])
            for name, x in zip(("pose2d", "con2d"), errors, strict=True)
        }

    graphdef, params, stats = nnx.split(Linear(), nnx.Param, nnx.BatchStat)
    step = make_train_step(
        graphdef,
        loss_terms_fn,
        remembering_descent(),
        Objective({"pose2d": 1.0, "con2d": 2.0}),
        AugmentConfig(32, **resnet18.get_config().augment),
        0.0,
        accumulate_steps,
    )
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    return jax.jit(step)(init_state(params, stats, remembering_descent(), 0.0), hand_batch, KEY)


@pytest.mark.parametrize("valid", [(1, 1, 1, 1), (1, 0, 1, 1), (0, 1, 0, 1), (0, 0, 0, 0)])
def test_a_batch_in_parts_has_the_slope_of_the_whole(hand_batch, valid):
    """Filler counts for nothing, wherever it falls: the third mask leaves the first part empty."""
    batch = hand_batch._replace(valid=np.array(valid, bool))
    whole, parts = linear_step(1, batch), linear_step(2, batch)
    assert (size_of(whole[0].opt_state) > 0) == any(valid)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, parts[0].opt_state, whole[0].opt_state)
    jax.tree.map(close, parts[1], whole[1])
    assert (whole[0].stats["seen"], parts[0].stats["seen"]) == (1, 2)


def test_without_a_decay_there_is_no_running_mean(tiny_network):
    state = init_state(tiny_network.params, tiny_network.stats, optax.sgd(1.0), 0.0)
    assert state.ema_params is None
    assert state.eval_params is state.params


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(tiny_network, decay):
    with pytest.raises(ValueError, match=r"optim.ema_decay=.* must lie in \[0, 1\)"):
        init_state(tiny_network.params, tiny_network.stats, optax.sgd(1.0), decay)


def some_terms():
    return {name: jnp.array(float(i + 1)) for i, name in enumerate(TERMS)}


def test_the_objective_is_the_weighted_sum_of_what_counts_yet():
    objective = Objective(
        dict(zip(TERMS, (1.0, 0.5, 0.1, 0.0, 2.0, 1.0), strict=True)), {"con3d": 10, "con2d": 10}
    )
    early, late = (objective.total(some_terms(), jnp.array(step)) for step in (9, 10))
    np.testing.assert_allclose(early, 1 + 0.5 * 2 + 0.1 * 3, rtol=1e-6)
    np.testing.assert_allclose(late - early, 2 * 5 + 6, rtol=1e-6)


def test_a_term_that_does_not_count_yet_cannot_spoil_the_loss():
    objective = Objective(dict.fromkeys(TERMS, 1.0), {"con3d": 10})
    terms = some_terms() | {"con3d": jnp.array(jnp.nan)}
    assert jnp.isfinite(objective.total(terms, jnp.array(9)))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_must_be_finite_and_not_negative(weight):
    with pytest.raises(ValueError, match=r"loss.weights.edge=(-1.0|nan|inf) must be"):
        Objective({"edge": weight})


def test_an_unknown_or_a_forgotten_weight_is_named():
    weights = dict.fromkeys((*TERMS[:-1], "con4d"), 1.0)
    with pytest.raises(ValueError, match=r"without a weight \['con2d'\], unknown \['con4d'\]"):
        Objective(weights).total(some_terms(), jnp.array(0))
