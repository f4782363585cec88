import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3dhmr_jax.runtime.preemption import SigtermNoted, Stopped, raise_at_sigterm, sigterm_held


@pytest.fixture(autouse=True)
def handler():
    """That of before is there again after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def send():
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_is_noted_while_it_may_not_stop(handler):
    with SigtermNoted() as sigterm:
        assert not sigterm.should_stop(1)
        send()
        assert sigterm.should_stop(2)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # A second one ends the program.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_without_a_signal_nothing_stays(handler):
    with SigtermNoted() as sigterm:
        assert not sigterm.should_stop(1)
    assert signal.getsignal(signal.SIGTERM) == handler


def test_elsewhere_it_is_raised_and_no_error():
    raise_at_sigterm()
    with pytest.raises(Stopped, match="by SIGTERM"), contextlib.suppress(Exception):
        send()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_held_back_it_is_raised_at_the_end_and_only_if_it_came():
    raise_at_sigterm()
    done = []

    def hold(signals):
        with sigterm_held():
            for _ in range(signals):
                send()
            done.append(signals)

    hold(0)
    with pytest.raises(Stopped, match="by SIGTERM"):
        hold(1)
    assert done == [0, 1]


def test_held_back_in_another_thread_it_stays_as_it_is(handler):
    def hold():
        with sigterm_held():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(hold).result() == handler
