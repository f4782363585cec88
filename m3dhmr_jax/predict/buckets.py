"""Batches of few sizes, so that a program is compiled once for each of them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

# Rows per call of the device; more are split. Each size is compiled when first used.
BUCKETS = (1, 2, 4, 8)


def run_in_buckets(step: Callable[..., Any], *inputs: Any, buckets: Sequence[int] = BUCKETS) -> Any:
    """`step` over all rows of `inputs`, pytrees of arrays, in as few calls as possible.

    Batches are padded with copies of their first row, which are dropped from the results: NumPy
    arrays with as many rows. Without rows nothing is computed.
    """
    n = len(jax.tree.leaves(inputs)[0])
    if n == 0:
        one_row = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), inputs)
        results = jax.eval_shape(step, *one_row)
        return jax.tree.map(lambda x: np.zeros((0, *x.shape[1:]), x.dtype), results)
    outputs = []
    for start in range(0, n, buckets[-1]):
        stop = min(start + buckets[-1], n)
        size = next(size for size in buckets if size >= stop - start)
        rows = [*range(start, stop)] + [start] * (size - (stop - start))
        batch = jax.device_get(step(*jax.tree.map(lambda x, rows=rows: x[rows], inputs)))
        outputs.append(jax.tree.map(lambda x, count=stop - start: x[:count], batch))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)
