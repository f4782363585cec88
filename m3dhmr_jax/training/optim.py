"""The optimizer: Adam on clipped gradients, its step-wise rate, and the running mean."""

import math
from collections.abc import Sequence
from typing import Any

import optax


def learning_rate(
    peak: float,
    steps_per_epoch: int,
    warmup_epochs: float,
    lr_decay_epochs: Sequence[float],
    lr_decay_factor: float,
) -> optax.Schedule:
    """A linear start, then `peak`, multiplied by `lr_decay_factor` at each of `lr_decay_epochs`.

    Raises:
        ValueError: if the rate is not positive, the start negative, the drops are not in order or
            the factor is not in (0, 1].
    """
    if not 0 < peak < math.inf:
        raise ValueError(f"optim.learning_rate={peak} must be positive and finite: a step's length")
    if not warmup_epochs >= 0:
        raise ValueError(
            f"optim.warmup_epochs={warmup_epochs} must be at least 0; 0 starts at once"
        )
    if list(lr_decay_epochs) != sorted(set(lr_decay_epochs)) or any(
        e <= warmup_epochs for e in lr_decay_epochs
    ):
        raise ValueError(
            f"optim.lr_decay_epochs={tuple(lr_decay_epochs)} must rise and lie after "
            f"optim.warmup_epochs={warmup_epochs}"
        )
    if not 0 < lr_decay_factor <= 1:
        raise ValueError(
            f"optim.lr_decay_factor={lr_decay_factor} must lie in (0, 1]: rates only fall"
        )
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    drops = {
        round(epoch * steps_per_epoch) - warmup_steps: lr_decay_factor for epoch in lr_decay_epochs
    }
    constant = optax.piecewise_constant_schedule(peak, drops)
    warmup = optax.linear_schedule(peak / max(warmup_steps, 1), peak, warmup_steps)
    return optax.join_schedules([warmup, constant], [warmup_steps])


def adam(rate: optax.Schedule, clip_norm: float) -> optax.GradientTransformation:
    """Adam as in the paper, on gradients shortened to `clip_norm` where they are longer.

    An untrained mesh is almost a point, and the direction of an edge of no length has an almost
    infinite slope. Without the clip the first two steps fill Adam's second moments with squares of
    hundreds, and the next thousand steps are a fraction of what the learning rate says.

    Raises:
        ValueError: if `clip_norm` is not positive; infinity never clips.
    """
    if not clip_norm > 0:
        raise ValueError(
            f"optim.clip_norm={clip_norm} must be positive: it is the longest gradient that is "
            "taken as it is; inf never clips"
        )
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(rate))


def update_ema(mean: Any, params: Any, decay: float) -> Any:
    """Moves the mean of parameters one step towards `params`."""
    return optax.incremental_update(params, mean, 1 - decay)
