"""What a command line reports in one line, and its exit codes."""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import NoReturn

from absl import flags

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import DiskFullError
from m3dhmr_jax.runtime.preemption import EXIT_CODE, Preempted

USER_ERROR, RUN_FAILED = 2, 1


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Exits with one line for a user's mistake or a failed run; other errors keep their traceback.

    The code is 2 for a user's mistake, 1 for a run that fails later, 143 after SIGTERM.
    """
    try:
        yield
    except UserError as error:
        _exit(f"Error: {error}", USER_ERROR)
    except (DiskFullError, ChildProcessError, FloatingPointError) as error:
        _exit(f"Error: {error}", RUN_FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        _exit(f"Error: {error}", RUN_FAILED)
    except (AssertionError, RuntimeError):
        missing = _missing_device()
        if missing is None:
            raise
        _exit(f"Error: {missing}", USER_ERROR)
    except Preempted as error:
        _exit(f"Preempted {error}", EXIT_CODE)


def _missing_device() -> str | None:
    """Which device JAX does not find; None if it has one. JAX only asserts that it has."""
    import jax  # Takes a second, and not every command needs it.

    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0] or "there is none"
        return (
            f"JAX_PLATFORMS={jax.config.jax_platforms}: JAX cannot use such a device ({reason}); "  # pyright: ignore[reportAttributeAccessIssue]
            "install jax[cuda13] for a GPU or jax[tpu] for a TPU, or unset JAX_PLATFORMS"
        )
    return None


def parse_flags(arguments: list[str]) -> list[str]:
    """Parses absl's flags and the config's; exits with one line if one is invalid."""
    rest = arguments[:1]
    try:
        rest = flags.FLAGS(arguments)
        getattr(flags.FLAGS.config, "task", None)  # Raises OSError if there is no such file.
        message = f"unknown argument {' '.join(rest[1:])}" if rest[1:] else ""
    except (flags.Error, OSError) as error:
        first, *traceback = str(error).strip().splitlines()  # A traceback if a config file raised.
        reason = re.sub(r"^[\w.]+: ", "", traceback[-1]) if traceback else ""
        message = f"{first.removesuffix(' Error whilst parsing config file:')} {reason}".strip()
    except (AttributeError, KeyError, TypeError) as error:
        fields = ", ".join(a for a in arguments if a.lstrip("-").startswith("config."))
        message = f"unknown config field in {fields}: {error}; see configs/resnet18.py"
    if message:
        _exit(f"Error: {message}", USER_ERROR)
    return rest


def _exit(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
