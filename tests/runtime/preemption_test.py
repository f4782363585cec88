import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3dhmr_jax.runtime.preemption import (
    Preempted,
    PreemptionGuard,
    defer_sigterm,
    install_sigterm_handler,
)


@pytest.fixture(autouse=True)
def handler():
    """That of before is there again after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def send():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_noted_while_it_may_not_stop(handler):
    with PreemptionGuard() as sigterm:
        assert not sigterm.should_stop(1)
        send()
        assert sigterm.should_stop(2)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # A second one ends the program.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_without_a_signal_nothing_stays(handler):
    with PreemptionGuard() as sigterm:
        assert not sigterm.should_stop(1)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_elsewhere_it_is_raised_and_no_error():
    install_sigterm_handler()
    with pytest.raises(Preempted, match="by SIGTERM"), contextlib.suppress(Exception):
        send()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_held_back_it_is_raised_at_the_end_and_only_if_it_came():
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


def test_held_back_in_another_thread_it_stays_as_it_is(handler):
    def hold():
        with defer_sigterm():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hold).result() == handler
