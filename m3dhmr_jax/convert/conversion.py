"""From the arrays of another network to those of ours, with an account of every one."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.checkpoints.weights import Arrays, names_of
from m3dhmr_jax.convert.architectures import Architecture
from m3dhmr_jax.convert.names import arranged, their_name

COUNTER = r".*\.num_batches_tracked"


class WrongShape(NamedTuple):
    theirs: str
    their_shape: tuple[int, ...]
    ours: str
    our_shape: tuple[int, ...]


class Conversion(NamedTuple):
    """What became of every array of theirs and of every one of ours."""

    params: Arrays
    stats: Arrays
    used: frozenset[str]  # Theirs.
    left: dict[str, str]  # Theirs, and why.
    missing: tuple[str, ...]  # Theirs, which the file should have.
    wrong_shape: tuple[WrongShape, ...]
    fresh: tuple[str, ...]  # Ours, which the other network has no counterpart of.


def convert(
    arrays: Mapping[str, np.ndarray], architecture: Architecture, params: Any, stats: Any
) -> Conversion:
    """The arrays that fit into ours, in our names, layout and number type.

    Args:
        params, stats: our trees; of their leaves only the shapes and types count.

    Raises:
        ValueError: if an array that is wanted holds other things than fractional numbers.
    """
    found: dict[str, Arrays] = {"params": {}, "stats": {}}
    used, missing, wrong_shape, fresh = set(), [], [], []
    for part, tree in (("params", params), ("stats", stats)):
        for name, leaf in zip(names_of(tree), jax.tree.leaves(tree), strict=True):
            if not re.match(architecture.covers, name):
                fresh.append(name)
                continue
            theirs = architecture.prefix + their_name(name, architecture.rules)
            if theirs not in arrays:
                missing.append(theirs)
                continue
            array = arranged(arrays[theirs], name, leaf.shape)
            if array.shape != leaf.shape:
                wrong_shape.append(WrongShape(theirs, arrays[theirs].shape, name, leaf.shape))
                continue
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise ValueError(f"{theirs} holds {array.dtype}, not fractional numbers")
            found[part][name] = np.asarray(array, leaf.dtype)
            used.add(theirs)
    known = used | {wrong.theirs for wrong in wrong_shape}
    return Conversion(
        **found,
        used=frozenset(used),
        left={name: why_left(name, architecture) for name in arrays if name not in known},
        missing=tuple(dict.fromkeys(missing)),
        wrong_shape=tuple(wrong_shape),
        fresh=tuple(fresh),
    )


def why_left(theirs: str, architecture: Architecture) -> str:
    """Why an array of the file has no place in ours."""
    if not theirs.startswith(architecture.prefix):
        return f"outside of the network, whose names start with {architecture.prefix}"
    own = theirs.removeprefix(architecture.prefix)
    reasons = {COUNTER: "counters that nothing reads", **architecture.why_left}
    known = (why for pattern, why in reasons.items() if re.match(pattern, own))
    return next(known, f"not a part of {architecture.title}")
