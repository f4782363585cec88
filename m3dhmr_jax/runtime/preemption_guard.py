"""Stops training between two steps when the machine is about to be taken away."""

import signal

import jax
from jax.experimental import multihost_utils


class PreemptionGuard:
    """Inside the block, the first SIGTERM is only recorded; a second one kills the process.

    With several processes JAX records it, and all of them stop after the same step.
    """

    def __init__(self):
        self._received = False

    def __enter__(self) -> "PreemptionGuard":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1 and not self._received:
            signal.signal(signal.SIGTERM, self._before)

    def _record(self, *_: object) -> None:
        self._received = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def should_stop(self, step: int) -> bool:
        """Whether to stop after `step`; every process must call this after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received
