"""The precision that everything but the official scores is computed in."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Keeps JAX in single precision, with JAX_ENABLE_X64 too; also decorates functions.

    In double precision, loops would get other types than they started with, and checkpoints would
    not have the types that were saved.
    """
    with jax.enable_x64(False):
        yield
