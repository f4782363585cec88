"""One training step as a pure function of one state.

Axes: b batch, k microbatches.
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
from m3dhmr_jax.data.appearance import AppearanceConfig
from m3dhmr_jax.data.augment import AugmentConfig, two_views
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.tasks import Task
from m3dhmr_jax.training import optim
from m3dhmr_jax.training.schedule import Schedule
from m3dhmr_jax.types import Batch, Config, FloatArray, View

Terms = dict[str, Float[Array, ""]]
TrainStep = Callable[["TrainState", Batch, Key[Array, ""]], tuple["TrainState", Terms]]


class TrainState(NamedTuple):
    """Everything that a run carries from one step to the next."""

    # Steps taken so far.
    step: Int[Array, ""]
    params: Any
    # BatchNorm statistics.
    stats: Any
    opt_state: Any
    # Exponential moving average of `params`; None if evaluation reads `params`.
    ema_params: Any

    @property
    def eval_params(self) -> Any:
        return self.params if self.ema_params is None else self.ema_params


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss: weights of the terms, some of which count from a later step on.

    Raises:
        UserError: if a weight is negative or not finite.
    """

    weights: Mapping[str, float]
    start_step: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise UserError(
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
        UserError: if `ema_decay` is not in [0, 1).
    """
    if not 0 <= ema_decay < 1:
        raise UserError(
            f"optim.ema_decay={ema_decay} must lie in [0, 1): 1 would keep the first values forever"
        )
    ema_params = jax.tree.map(jnp.copy, params) if ema_decay else None
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, stats, optimizer.init(params), ema_params)


class _Microbatch(NamedTuple):
    """The network's input from a batch or a part of it."""

    view1: View
    view2: View
    valid: Bool[Array, " b"]
    quality: Float[FloatArray, " b"] | None


def _split_microbatches(batch: _Microbatch, k: int) -> _Microbatch:
    """Splits the rows into k microbatches of equal size, along a new first axis.

    Microbatch i takes every k-th row from row i on: devices hold neighbouring rows, so each has
    an equal part of every microbatch and no rows are exchanged.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, k, *x.shape[1:]), 0, 1), batch)


def make_train_step(
    graphdef: Any,
    loss_terms_fn: Callable[..., Terms],
    optimizer: optax.GradientTransformation,
    objective: Objective,
    augment: AugmentConfig,
    ema_decay: float,
    accumulate_steps: int = 1,
) -> TrainStep:
    """A function from (state, batch, run's key) to (next state, loss terms); to be jitted once.

    `loss_terms_fn(pred1, view1, pred2, view2, valid=..., quality=...)` returns the loss terms of
    two views, each a mean over the valid examples.

    With `accumulate_steps` k the batch passes through the network as k microbatches, one after the
    other, in about a k-th of the memory. Crops, mean terms and mean gradients are those of the
    full batch, but BatchNorm normalises each microbatch by itself and moves its running statistics
    k times.
    """

    def loss_fn(params: Any, stats: Any, step: Int[Array, ""], batch: _Microbatch):
        model = nnx.merge(graphdef, params, stats)
        # Both views in one pass: BatchNorm sees them together, and the device is better filled.
        both = model(jnp.concatenate([batch.view1.image, batch.view2.image]))
        pred1, pred2 = (jax.tree.map(lambda x, i=i: jnp.split(x, 2)[i], both) for i in range(2))
        terms = loss_terms_fn(
            pred1, batch.view1, pred2, batch.view2, valid=batch.valid, quality=batch.quality
        )
        new_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return objective.total(terms, step), (terms, new_stats)

    grad_fn = jax.grad(loss_fn, has_aux=True)

    def accumulate_grads(params: Any, stats: Any, step: Int[Array, ""], batch: _Microbatch):
        n_valid = jnp.maximum(jnp.sum(batch.valid), 1)

        def add(carry: tuple[Any, Any], microbatch: _Microbatch):
            sums, stats = carry
            grads, (terms, stats) = grad_fn(params, stats, step, microbatch)
            # Terms are means over the valid examples.
            weight = jnp.sum(microbatch.valid) / n_valid
            sums = jax.tree.map(lambda sum_, x: sum_ + weight * x, sums, (grads, terms))
            return (sums, stats), None

        microbatches = _split_microbatches(batch, accumulate_steps)
        first = jax.tree.map(lambda x: x[0], microbatches)
        grads, (terms, _) = jax.eval_shape(grad_fn, params, stats, step, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, terms))
        ((grads, terms), stats), _ = jax.lax.scan(add, (zeros, stats), microbatches)
        return grads, (terms, stats)

    compute_grads = grad_fn if accumulate_steps == 1 else accumulate_grads

    def train_step(
        state: TrainState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Terms]:
        views = two_views(batch, key, state.step, augment)
        inputs = _Microbatch(*views, jnp.asarray(batch.valid), batch.quality)
        grads, (terms, stats) = compute_grads(state.params, state.stats, state.step, inputs)
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
    """`train_step`, but a batch whose loss terms or next state are not finite changes nothing.

    Only the step counter advances, which keeps the order of the data. A further term, `skipped`,
    is 1 for such a batch and 0 for others.
    """

    def step(state: TrainState, batch: Batch, key: Key[Array, ""]) -> tuple[TrainState, Terms]:
        following, terms = train_step(state, batch, key)
        finite = all_finite((terms, following))
        # A `where` for each array compiles for minutes, into one fusion of the complete step.
        kept = jax.lax.cond(finite, lambda: following, lambda: state)
        return kept._replace(step=following.step), terms | {"skipped": 1.0 - finite}

    return step


def create_step(
    config: Config,
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, Terms]]:
    """The jitted step; its first argument is donated."""
    start_step = {
        name: round(epoch * schedule.steps_per_epoch) for name, epoch in task.start_epoch.items()
    }
    step = make_train_step(
        task.network.graphdef,
        task.loss_terms_fn,
        optimizer,
        Objective(dict(config.loss.weights), start_step),
        AugmentConfig(
            size=task.network.image_size,
            **config.augment,
            appearance=AppearanceConfig(**config.appearance),
        ),
        config.optim.ema_decay,
        config.optim.accumulate_steps,
    )
    if config.optim.skip_nonfinite:
        step = skipping_nonfinite(step)
    return sharding.jit_step(step, mesh)
