import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3dhmr_jax.runtime.preemption import (
    Preempted,
    defer_sigterm,
    install_sigterm_handler,
)
from m3dhmr_jax.runtime.preemption_guard import PreemptionGuard


@pytest.fixture(autouse=True)
def handler():
    """The handler of SIGTERM, restored after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def send():
    os.kill(os.getpid(), signal.SIGTERM)


def test_guard_records_sigterm(handler):
    with PreemptionGuard() as guard:
        assert not guard.should_stop(1)
        send()
        assert guard.should_stop(2)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # A second one kills the process.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_guard_restores_handler(handler):
    with PreemptionGuard() as guard:
        assert not guard.should_stop(1)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_sigterm_handler_raises_base_exception():
    install_sigterm_handler()
    with pytest.raises(Preempted, match="by SIGTERM"), contextlib.suppress(Exception):
        send()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_defer_sigterm_raises_at_end():
    install_sigterm_handler()
    done = []

    def hold(signals):
        with defer_sigterm():
            for _ in range(signals):
                send()
            done.append(signals)

    hold(0)
    with pytest.raises(Preempted, match="by SIGTERM"):
        hold(1)
    assert done == [0, 1]


def test_defer_sigterm_has_no_effect_in_threads(handler):
    def hold():
        with defer_sigterm():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hold).result() == handler
