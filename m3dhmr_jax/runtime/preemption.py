"""SIGTERM: what clusters send some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM  # As shells say it: neither finished nor failed.


class Preempted(BaseException):
    """The program was asked to stop and does; says what is kept. No error, so nobody handles it."""


def install_sigterm_handler() -> None:
    """From now on, the first SIGTERM raises `Preempted`; a second one ends the program at once."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Preempted("by SIGTERM; nothing half-written will be taken for whole")

    signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def defer_sigterm() -> Iterator[None]:
    """What comes meanwhile takes effect at the end: a process that is being started is not torn."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals interrupt no other thread.
        return
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            signal.raise_signal(signal.SIGTERM)


class PreemptionGuard:
    """While it lasts, the first SIGTERM is only noted; a second one ends the program at once.

    In a run of several processes jax notes it, and makes all of them stop after the same step.
    """

    def __init__(self):
        self._noted = False

    def __enter__(self) -> "PreemptionGuard":
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1 and not self._noted:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self._noted = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def should_stop(self, step: int) -> bool:
        """Whether the run shall end after `step`; every process must ask after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noted
