"""Converts another implementation's arrays to ours and reports what became of each."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.checkpoints.weights import Arrays, names_of
from m3dhmr_jax.convert.architectures import Architecture
from m3dhmr_jax.convert.names import their_name, to_our_layout
from m3dhmr_jax.errors import UserError

COUNTER = r".*\.num_batches_tracked"


class WrongShape(NamedTuple):
    theirs: str
    their_shape: tuple[int, ...]
    ours: str
    our_shape: tuple[int, ...]


class Conversion(NamedTuple):
    """What became of each array in their file and of each of ours."""

    params: Arrays
    stats: Arrays
    used: frozenset[str]  # Their names.
    unused: dict[str, str]  # Their names, each with the reason.
    missing: tuple[str, ...]  # Their names that the file should have but lacks.
    wrong_shape: tuple[WrongShape, ...]
    initialised: tuple[str, ...]  # Our names without a counterpart in their network.


def convert(
    arrays: Mapping[str, np.ndarray], architecture: Architecture, params: Any, stats: Any
) -> Conversion:
    """Their arrays under our names, in our layout and dtype.

    Args:
        params, stats: our trees; only the shapes and dtypes of their leaves are used.

    Raises:
        UserError: if an array that is needed is not floating point.
    """
    found: dict[str, Arrays] = {"params": {}, "stats": {}}
    used, missing, wrong_shape, initialised = set(), [], [], []
    for kind, tree in (("params", params), ("stats", stats)):
        for name, leaf in zip(names_of(tree), jax.tree.leaves(tree), strict=True):
            if not re.match(architecture.covers, name):
                initialised.append(name)
                continue
            theirs = architecture.prefix + their_name(name, architecture.rules)
            if theirs not in arrays:
                missing.append(theirs)
                continue
            array = to_our_layout(arrays[theirs], name, leaf.shape)
            if array.shape != leaf.shape:
                wrong_shape.append(WrongShape(theirs, arrays[theirs].shape, name, leaf.shape))
                continue
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise UserError(f"{theirs} holds {array.dtype}, not floating-point numbers")
            found[kind][name] = np.asarray(array, leaf.dtype)
            used.add(theirs)
    known = used | {wrong.theirs for wrong in wrong_shape}
    return Conversion(
        **found,
        used=frozenset(used),
        unused={name: unused_reason(name, architecture) for name in arrays if name not in known},
        missing=tuple(dict.fromkeys(missing)),
        wrong_shape=tuple(wrong_shape),
        initialised=tuple(initialised),
    )


def unused_reason(theirs: str, architecture: Architecture) -> str:
    """Why an array in their file has no counterpart in our network."""
    if not theirs.startswith(architecture.prefix):
        return f"outside the network, whose names start with {architecture.prefix}"
    own = theirs.removeprefix(architecture.prefix)
    reasons = {COUNTER: "BatchNorm counters, not needed", **architecture.unused_reasons}
    known = (reason for pattern, reason in reasons.items() if re.match(pattern, own))
    return next(known, f"not a part of {architecture.title}")
