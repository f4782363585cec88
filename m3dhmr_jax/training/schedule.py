"""When a run saves, evaluates and stops."""

import dataclasses

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import Config


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When to save, evaluate and stop, in steps."""

    steps: int
    steps_per_epoch: int
    save_every: int
    evaluate_every: int

    @classmethod
    def of(cls, config: Config, n_examples: int) -> "Schedule":
        """Raises UserError if there is less than one batch, or an interval is not positive."""
        steps_per_epoch = n_examples // config.batch_size
        if not steps_per_epoch:
            raise UserError(
                f"batch_size={config.batch_size} is larger than the training set of {n_examples}"
            )
        intervals = {
            "epochs": config.epochs,
            "checkpoint_every_epochs": config.checkpoint_every_epochs,
            "eval.every_epochs": config.eval.every_epochs,
        }
        for name, epochs in intervals.items():
            if not epochs > 0:
                raise UserError(f"{name}={epochs} must be positive: it is a number of epochs")
        steps, *every = (max(round(e * steps_per_epoch), 1) for e in intervals.values())
        return cls(steps, steps_per_epoch, *every)

    def saves(self, step: int) -> bool:
        return step == self.steps or step % self.save_every == 0

    def evaluates(self, step: int) -> bool:
        return step == self.steps or step % self.evaluate_every == 0
