"""The optimizer: Adam on clipped gradients, its learning-rate schedule, and the EMA."""

import math
from collections.abc import Sequence
from typing import Any

import optax

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import Config


def create_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of `config.optim`; raises UserError if one of its fields has a bad value."""
    lr = lr_schedule(
        config.optim.learning_rate,
        steps_per_epoch,
        config.optim.warmup_epochs,
        config.optim.lr_decay_epochs,
        config.optim.lr_decay_factor,
    )
    return adam(lr, config.optim.clip_norm)


def lr_schedule(
    peak: float,
    steps_per_epoch: int,
    warmup_epochs: float,
    lr_decay_epochs: Sequence[float],
    lr_decay_factor: float,
) -> optax.Schedule:
    """Linear warm-up, then `peak`, multiplied by `lr_decay_factor` at each of `lr_decay_epochs`.

    Raises:
        UserError: if `peak` is not positive, the warm-up negative, the epochs are not in order or
            the factor is not in (0, 1].
    """
    if not 0 < peak < math.inf:
        raise UserError(f"optim.learning_rate={peak} must be positive and finite: a step's length")
    if not warmup_epochs >= 0:
        raise UserError(
            f"optim.warmup_epochs={warmup_epochs} must be at least 0; 0 skips the warm-up"
        )
    if list(lr_decay_epochs) != sorted(set(lr_decay_epochs)) or any(
        e <= warmup_epochs for e in lr_decay_epochs
    ):
        raise UserError(
            f"optim.lr_decay_epochs={tuple(lr_decay_epochs)} must increase and lie after "
            f"optim.warmup_epochs={warmup_epochs}"
        )
    if not 0 < lr_decay_factor <= 1:
        raise UserError(
            f"optim.lr_decay_factor={lr_decay_factor} must lie in (0, 1]: it lowers the learning "
            "rate"
        )
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    decays = {
        round(epoch * steps_per_epoch) - warmup_steps: lr_decay_factor for epoch in lr_decay_epochs
    }
    constant = optax.piecewise_constant_schedule(peak, decays)
    warmup = optax.linear_schedule(peak / max(warmup_steps, 1), peak, warmup_steps)
    return optax.join_schedules([warmup, constant], [warmup_steps])


def adam(lr: optax.Schedule, clip_norm: float) -> optax.GradientTransformation:
    """Adam as in the paper, on gradients clipped to a global norm of `clip_norm`.

    An untrained mesh is almost a point, where the gradient of an edge's direction is almost
    infinite. Without clipping, the first two steps fill Adam's second moments with squares of
    hundreds, and the next thousand steps are a fraction of the learning rate.

    Raises:
        UserError: if `clip_norm` is not positive; infinity never clips.
    """
    if not clip_norm > 0:
        raise UserError(
            f"optim.clip_norm={clip_norm} must be positive: longer gradients are scaled to this "
            "norm; inf never clips"
        )
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(lr))


def update_ema(ema_params: Any, params: Any, decay: float) -> Any:
    """Moves the exponential moving average one step towards `params`."""
    return optax.incremental_update(params, ema_params, 1 - decay)
