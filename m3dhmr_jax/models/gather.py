"""Reading rows by indices that are known in advance, and the slope of that.

JAX makes a gather's slope a scatter. On a CPU nothing is faster; elsewhere its additions wait for
each other, and as it is known who reads which row, the slope can be gathered as well.
Axes: b batch, n rows, r places that read a row, j readers of one row, c channels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Indices as a constant of the program: hashed by identity, not an argument with a slope."""

    indices: Int[np.ndarray, "*r"]

    def readers(self, n: int) -> Int[np.ndarray, "n j"]:
        """The places of the flattened indices that hold each of `n` rows; -1 fills up."""
        flat = self.indices.ravel()
        counts = np.bincount(flat, minlength=n)
        places = np.argsort(flat, kind="stable")
        nth = np.arange(flat.size) - np.repeat(np.cumsum(counts) - counts, counts)
        found = np.full((n, counts.max()), -1)
        found[flat[places], nth] = places
        return found


def take_rows(x: Float[Array, "b n c"], indices: Int[np.ndarray, "*r"]) -> Float[Array, "b *r c"]:
    """`x[:, indices]`."""
    return _take(x, Rows(indices))


def sums_by_row(values: Float[Array, "b *r c"], rows: Rows, n: int) -> Float[Array, "b n c"]:
    """For each of `n` rows the sum of the values at the places that hold it."""
    flat = values.reshape(values.shape[0], rows.indices.size, values.shape[-1])
    return jax.lax.platform_dependent(
        flat,
        cpu=functools.partial(scattered, rows=rows, n=n),
        default=functools.partial(gathered, rows=rows, n=n),
    )


def scattered(values: Float[Array, "b r c"], rows: Rows, n: int) -> Float[Array, "b n c"]:
    """`sums_by_row`, value after value."""
    sums = jnp.zeros((values.shape[0], n, values.shape[-1]), values.dtype)
    return sums.at[:, rows.indices.ravel()].add(values)


def gathered(values: Float[Array, "b r c"], rows: Rows, n: int) -> Float[Array, "b n c"]:
    """`sums_by_row`, each row from its readers."""
    places = rows.readers(n)
    read = jnp.take(values, np.maximum(places, 0), axis=1)
    return jnp.sum(jnp.where(places[None, :, :, None] >= 0, read, 0), axis=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _take(x: Array, rows: Rows) -> Array:
    return jnp.take(x, rows.indices, axis=1)


def _take_forward(x: Array, rows: Rows) -> tuple[Array, int]:
    return _take(x, rows), x.shape[1]


def _take_backward(rows: Rows, n: int, slope: Array) -> tuple[Array]:
    return (sums_by_row(slope, rows, n),)


_take.defvjp(_take_forward, _take_backward)
