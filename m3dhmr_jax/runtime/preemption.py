"""Preemption: clusters send SIGTERM some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM  # The convention of shells for a process ended by a signal.


class Preempted(BaseException):
    """The program stops because it was asked to; the message states what is saved.

    A BaseException, as KeyboardInterrupt is: `except Exception` does not catch it.
    """


def install_sigterm_handler() -> None:
    """Makes the first SIGTERM raise `Preempted`; a second one kills the process."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Preempted("by SIGTERM; incomplete files are never used")

    signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def defer_sigterm() -> Iterator[None]:
    """Delivers a SIGTERM at the end of the block: starting a process is not interrupted halfway."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signal handlers run in the main thread only.
        return
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if received:
            signal.raise_signal(signal.SIGTERM)


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
