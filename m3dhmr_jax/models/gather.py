"""Row gather with static indices and a fast backward pass.

JAX differentiates a gather into a scatter-add, which serialises on accelerators; since the indices
are static, the backward pass can gather instead. CPUs keep the scatter, which is fastest there.

Axes: b batch, n rows of the input, r rows of the output, j output rows per input row, c channels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@dataclasses.dataclass(frozen=True, eq=False)
class StaticIndices:
    """Indices as a compile-time constant: hashed by identity, not a differentiable argument."""

    indices: Int[np.ndarray, "*r"]


def inverse_index(indices: Int[np.ndarray, "*r"], n: int) -> Int[np.ndarray, "n j"]:
    """For each of `n` rows, the positions in the flattened indices that read it, padded with -1."""
    flat = indices.ravel()
    counts = np.bincount(flat, minlength=n)
    positions = np.argsort(flat, kind="stable")
    nth = np.arange(flat.size) - np.repeat(np.cumsum(counts) - counts, counts)
    inverse = np.full((n, counts.max()), -1)
    inverse[flat[positions], nth] = positions
    return inverse


def gather_rows(x: Float[Array, "b n c"], indices: Int[np.ndarray, "*r"]) -> Float[Array, "b *r c"]:
    """`x[:, indices]`; reverse-mode differentiable only, as every `jax.custom_vjp`."""
    return _gather(x, StaticIndices(indices))


def segment_sum(
    values: Float[Array, "b *r c"], segments: StaticIndices, n: int
) -> Float[Array, "b n c"]:
    """For each of `n` segments, the sum of the values whose index names it."""
    flat = values.reshape(values.shape[0], segments.indices.size, values.shape[-1])
    return jax.lax.platform_dependent(
        flat,
        cpu=functools.partial(_scatter_add, segments=segments, n=n),
        default=functools.partial(_gather_add, segments=segments, n=n),
    )


def _scatter_add(
    values: Float[Array, "b r c"], segments: StaticIndices, n: int
) -> Float[Array, "b n c"]:
    sums = jnp.zeros((values.shape[0], n, values.shape[-1]), values.dtype)
    return sums.at[:, segments.indices.ravel()].add(values)


def _gather_add(
    values: Float[Array, "b r c"], segments: StaticIndices, n: int
) -> Float[Array, "b n c"]:
    inverse = inverse_index(segments.indices, n)
    terms = jnp.take(values, np.maximum(inverse, 0), axis=1)
    # `where`, not a product: padding must not carry over another segment's NaN.
    return jnp.sum(jnp.where(inverse[None, :, :, None] >= 0, terms, 0), axis=2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: Array, rows: StaticIndices) -> Array:
    return jnp.take(x, rows.indices, axis=1)


def _gather_fwd(x: Array, rows: StaticIndices) -> tuple[Array, int]:
    return _gather(x, rows), x.shape[1]


def _gather_bwd(rows: StaticIndices, n: int, cotangent: Array) -> tuple[Array]:
    return (segment_sum(cotangent, rows, n),)


_gather.defvjp(_gather_fwd, _gather_bwd)
