"""Preemption: clusters send SIGTERM some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator

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
