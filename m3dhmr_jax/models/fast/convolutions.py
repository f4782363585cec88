"""Convolutions in use: what XLA's own convolution answers, in less time.

XLA lays out the weights of a convolution anew at every call, which for one image costs as much as
the arithmetic. Here `prepare` does such work once, and `apply` the rest: on a GPU in cuDNN's
layout, on a CPU as matrix products. All are padded with zeros so that stride 1 keeps the size, as
far as an odd kernel can.
Axes: b batch, h w image, i j kernel, c d channels, n side of a tile.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

SMALL_IMAGE = 64  # Pixels up to which patches are cheaper as a product than as slices.
MANY_WEIGHTS = 2**17  # From here on laying them out anew costs more than turning the answer.


class Formulation(NamedTuple):
    """One way to compute a convolution."""

    prepare: Callable[[Float[Array, "i j c d"]], Array]
    apply: Callable[[Float[Array, "b h w c"], Array, int], Float[Array, "b h_out w_out d"]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A function of an image and a prepared kernel; equal ones compile once."""

    formulation: Formulation
    stride: int

    def __call__(
        self, x: Float[Array, "b h w c"], prepared: Array
    ) -> Float[Array, "b h_out w_out d"]:
        return self.formulation.apply(x, prepared, self.stride)


def _native(
    x: Float[Array, "b h w c"], kernel: Float[Array, "_ _ _ _"], stride: int, layout: str = "HWIO"
) -> Float[Array, "b h_out w_out d"]:
    sides = (kernel.shape[layout.index(axis)] for axis in "HW")
    border = [((side - 1) // 2, (side - 1) // 2) for side in sides]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), border, dimension_numbers=("NHWC", layout, "NHWC")
    )


def _patches(
    x: Float[Array, "b h w c"], size: int, stride: int
) -> Float[Array, "b h_out w_out iic"]:
    """What the kernel sees at each of its places."""
    b, h, w, c = x.shape
    r = (size - 1) // 2
    rows, columns = range(0, h + 2 * r - size + 1, stride), range(0, w + 2 * r - size + 1, stride)
    if size > 1 and h * w <= SMALL_IMAGE:
        seen = np.einsum("yih,xjw->yxijhw", _places(rows, size, h), _places(columns, size, w))
        patches = jnp.einsum(
            "pq,bqc->bpc", seen.reshape(-1, h * w), x.reshape(b, h * w, c), precision="highest"
        )
        return patches.reshape(b, len(rows), len(columns), size * size * c)
    bordered = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
    parts = [
        bordered[:, i : i + rows[-1] + 1 : stride, j : j + columns[-1] + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(parts, axis=-1)


def _places(starts: range, size: int, n: int) -> Float[np.ndarray, "out i n"]:
    """1 where a kernel that starts at starts[o] of the bordered line sees cell n with its i-th."""
    cells = np.array(starts)[:, None] + np.arange(size) - (size - 1) // 2
    return (cells[..., None] == np.arange(n)).astype(np.float32)


def _patches_first(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i i c d"], stride: int
) -> Float[Array, "b h_out w_out d"]:
    return _patches(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[-1])


def _weights_first(
    x: Float[Array, "b h w c"], kernel: Float[Array, "d i i c"], stride: int
) -> Float[Array, "b h_out w_out d"]:
    """The first factor of a product is read as it lies."""
    patches = _patches(x, kernel.shape[1], stride)
    d, (b, h, w, n) = len(kernel), patches.shape
    y = jax.lax.dot_general(
        kernel.reshape(d, n), patches.reshape(b * h * w, n), (((1,), (1,)), ((), ()))
    )
    # Without the barrier XLA swaps the factors, to save the transposition.
    return jax.lax.optimization_barrier(y).T.reshape(b, h, w, d)


# Winograd's F(4×4, 3×3) (Lavin and Gray, 2016): 16 answers from 36 products instead of 144.
TILE = 4
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _combine(matrix: Sequence[Sequence[int]], parts: Sequence[Array]) -> list[Array]:
    """Sums of the parts, weighted by the rows, as additions that melt into one loop."""
    return [
        functools.reduce(operator.add, (a * x for a, x in zip(row, parts, strict=True) if a))
        for row in matrix
    ]


def _winograd_kernel(kernel: Float[Array, "3 3 c d"]) -> Float[Array, "n n c d"]:
    turn = np.array(KERNEL, np.float32)
    return jnp.einsum("ni,mj,ijcd->nmcd", turn, turn, kernel, precision="highest")


def _winograd(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c d"], stride: int
) -> Float[Array, "b h w d"]:
    if stride != 1:
        raise ValueError(f"stride={stride} must be 1: tiles share what neighbouring answers share")
    b, h, w, c = x.shape
    n, _, _, d = kernel.shape
    down, across = -(-h // TILE), -(-w // TILE)
    border = [(0, 0), (1, TILE * down - h + 1), (1, TILE * across - w + 1), (0, 0)]
    x = jnp.pad(x, border)
    rows = [x[:, i : i + TILE * (down - 1) + 1 : TILE] for i in range(n)]
    # Barriers keep the two directions apart: melted together, sums would be made many times.
    x = jax.lax.optimization_barrier(jnp.stack(_combine(INPUT, rows)))
    columns = [x[..., j : j + TILE * (across - 1) + 1 : TILE, :] for j in range(n)]
    tiles = jnp.stack(_combine(INPUT, columns), axis=1).reshape(n * n, b * down * across, c)
    y = jnp.matmul(tiles, kernel.reshape(n * n, c, d)).reshape(n, n, b, down, across, d)
    y = jax.lax.optimization_barrier(jnp.stack(_combine(OUTPUT, list(y))))
    y = jnp.stack(_combine(OUTPUT, [y[:, j] for j in range(n)]))  # Column, row, b, down, across, d.
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(b, TILE * down, TILE * across, d)
    return y[:, :h, :w]


NATIVE = Formulation(lambda kernel: kernel, _native)
CUDNN = Formulation(
    lambda kernel: kernel.transpose(3, 0, 1, 2), functools.partial(_native, layout="OHWI")
)
PATCHES_FIRST = Formulation(lambda kernel: kernel, _patches_first)
WEIGHTS_FIRST = Formulation(lambda kernel: kernel.transpose(3, 0, 1, 2), _weights_first)
WINOGRAD = Formulation(_winograd_kernel, _winograd)


def cheapest(shape: tuple[int, ...], stride: int, dtype: DTypeLike, backend: str) -> Formulation:
    """For one image or few; as measured, `benchmarks/RESULTS.md`."""
    size, _, c, d = shape
    if backend == "gpu":
        return CUDNN
    if backend != "cpu" or dtype != jnp.float32 or c < 8:
        return NATIVE
    if size == 3 and stride == 1 and c <= 128:
        return WINOGRAD
    return WEIGHTS_FIRST if size * size * c * d >= MANY_WEIGHTS else PATCHES_FIRST
