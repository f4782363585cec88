"""SIGTERM: what clusters send some seconds before they take a machine away."""

import signal

EXIT_CODE = 128 + signal.SIGTERM  # As shells say it: neither finished nor failed.


class Stopped(BaseException):
    """The program was asked to stop and does; says what is kept. No error, so nobody handles it."""


def raise_at_sigterm() -> None:
    """From now on, the first SIGTERM raises `Stopped`; a second one ends the program at once."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Stopped("by SIGTERM; nothing half-written will be taken for whole")

    signal.signal(signal.SIGTERM, stop)


class SigtermNoted:
    """While it lasts, the first SIGTERM is only noted; a second one ends the program at once."""

    def __init__(self):
        self._noted = False

    def __enter__(self) -> "SigtermNoted":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._noted:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self._noted = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def should_stop(self, step: int) -> bool:
        """Whether the run shall end after `step`: the place for processes to agree on one."""
        del step
        return self._noted
