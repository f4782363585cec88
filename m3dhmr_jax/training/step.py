"""One step of training as one pure function over one state.

Axes: b batch.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from m3dhmr_jax import losses
from m3dhmr_jax.data.augment import AugmentConfig, two_views
from m3dhmr_jax.training import optim
from m3dhmr_jax.types import Batch, View

Terms = dict[str, Float[Array, ""]]
LossTermsFn = Callable[..., Terms]  # Of (pred1, view1, pred2, view2, valid=...).
TrainStep = Callable[["TrainState", Batch, Key[Array, ""]], tuple["TrainState", Terms]]


class TrainState(NamedTuple):
    """All that a run must remember between two steps."""

    step: Int[Array, ""]  # Steps taken so far.
    params: Any
    stats: Any  # BatchNorm's.
    opt_state: Any
    ema_params: Any  # Their running mean; None if evaluation takes the parameters themselves.

    @property
    def eval_params(self) -> Any:
        return self.params if self.ema_params is None else self.ema_params


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss: weights of the terms; some of them count from a later step on.

    Raises:
        ValueError: if a weight is negative or not finite.
    """

    weights: Mapping[str, float]
    start_step: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f"loss.weights.{name}={weight} must be finite and at least 0: "
                    "losses are minimised"
                )

    def total(self, terms: Terms, step: Int[Array, ""]) -> Float[Array, ""]:
        counted = {
            name: jnp.where(step >= self.start_step.get(name, 0), term, 0)
            for name, term in terms.items()
        }
        return losses.total(counted, self.weights)


def init_state(
    params: Any, stats: Any, optimizer: optax.GradientTransformation, ema_decay: float
) -> TrainState:
    """The state before the first step.

    Raises:
        ValueError: if `ema_decay` is not in [0, 1).
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(
            f"optim.ema_decay={ema_decay} must lie in [0, 1): 1 would never leave the first values"
        )
    ema_params = jax.tree.map(jnp.copy, params) if ema_decay else None
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, stats, optimizer.init(params), ema_params)


class _Part(NamedTuple):
    """What the network sees of a batch, or of a part of it."""

    view1: View
    view2: View
    valid: Bool[Array, " b"]


def _parts(whole: _Part, k: int) -> _Part:
    """Cuts the rows into k parts of equal length, along a new first axis.

    Part i is every k-th row from row i on: devices that hold neighbouring rows then have as many
    rows of each part, and none are sent around.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, k, *x.shape[1:]), 0, 1), whole)


def make_train_step(
    graphdef: Any,
    loss_terms_fn: LossTermsFn,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    augment: AugmentConfig,
    ema_decay: float,
    accumulate_steps: int = 1,
) -> TrainStep:
    """A function (state, batch, run's key) to (next state, loss terms); to be jitted once.

    `loss_terms_fn(pred1, view1, pred2, view2, valid=...)` answers the loss terms of two views, each a
    mean over the valid examples.

    With `accumulate_steps` k the batch goes through the network in k parts, one after the other,
    for about a k-th of the memory. Crops, mean terms and mean gradients are those of the whole
    batch, but BatchNorm normalises each part by itself and moves its running statistics k times.
    """

    def loss_fn(params: Any, stats: Any, step: Int[Array, ""], part: _Part):
        model = nnx.merge(graphdef, params, stats)
        # Both views in one pass: BatchNorm sees them together, and the device is better filled.
        both = model(jnp.concatenate([part.view1.image, part.view2.image]))
        pred1, pred2 = (jax.tree.map(lambda x, i=i: jnp.split(x, 2)[i], both) for i in range(2))
        terms = loss_terms_fn(pred1, part.view1, pred2, part.view2, valid=part.valid)
        new_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return objective.total(terms, step), (terms, new_stats)

    slope_of = jax.grad(loss_fn, has_aux=True)

    def accumulated(params: Any, stats: Any, step: Int[Array, ""], whole: _Part):
        n_valid = jnp.maximum(jnp.sum(whole.valid), 1)

        def add(carry: tuple[Any, Any], part: _Part):
            sums, stats = carry
            grads, (terms, stats) = slope_of(params, stats, step, part)
            share = jnp.sum(part.valid) / n_valid  # Terms are means over the valid examples.
            sums = jax.tree.map(lambda sum_, x: sum_ + share * x, sums, (grads, terms))
            return (sums, stats), None

        parts = _parts(whole, accumulate_steps)
        first = jax.tree.map(lambda x: x[0], parts)
        grads, (terms, _) = jax.eval_shape(slope_of, params, stats, step, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, terms))
        ((grads, terms), stats), _ = jax.lax.scan(add, (zeros, stats), parts)
        return grads, (terms, stats)

    def train_step(
        state: TrainState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Terms]:
        whole = _Part(*two_views(batch, key, state.step, augment), jnp.asarray(batch.valid))
        slope = slope_of if accumulate_steps == 1 else accumulated
        grads, (terms, stats) = slope(state.params, state.stats, state.step, whole)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = state.ema_params
        if ema_params is not None:
            ema_params = optim.update_ema(ema_params, params, ema_decay)
        return TrainState(state.step + 1, params, stats, opt_state, ema_params), terms

    return train_step


@jax.jit
def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no leaf holds NaN or infinity."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def skipping_nonfinite(train_step: TrainStep) -> TrainStep:
    """That step, but a batch with a loss term or a next state that is not finite changes nothing.

    Only the step is counted, so that the order of the data stays. A further term, `skipped`, is 1
    for such a batch and 0 for others.
    """

    def step(state: TrainState, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Terms]:
        following, terms = train_step(state, batch, key)
        finite = all_finite((terms, following))
        # A choice for each array would be compiled for minutes, into one fusion of the whole step.
        kept = jax.lax.cond(finite, lambda: following, lambda: state)
        return kept._replace(step=following.step), terms | {"skipped": 1.0 - finite}

    return step
