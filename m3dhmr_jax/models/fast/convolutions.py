"""Inference-only convolutions: same results as XLA's, faster at batch 1.

XLA repacks the weights of a convolution at every call, which for one image costs as much as the
arithmetic. Here `pack_weights` does that once and `apply` does the rest: on a GPU in cuDNN's
layout, on a CPU as matrix products. All use zero padding of (size - 1) // 2 on each side.

Axes: b batch, h w image, i j kernel, c d channels, n side of a Winograd tile.
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

# Up to this size im2col is faster as a matrix product than as slices.
MAX_DENSE_IM2COL_PIXELS = 64
# From this size on, repacking the weights costs more than transposing the output.
MIN_TRANSPOSED_WEIGHTS = 2**17


class ConvAlgorithm(NamedTuple):
    """One way to compute a convolution."""

    pack_weights: Callable[[Float[Array, "i j c d"]], Array]
    apply: Callable[[Float[Array, "b h w c"], Array, int], Float[Array, "b h_out w_out d"]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A function of an image and packed weights; equal instances share one compilation."""

    algorithm: ConvAlgorithm
    stride: int

    def __call__(
        self, x: Float[Array, "b h w c"], packed: Array
    ) -> Float[Array, "b h_out w_out d"]:
        return self.algorithm.apply(x, packed, self.stride)


def _native(
    x: Float[Array, "b h w c"], kernel: Float[Array, "_ _ _ _"], stride: int, layout: str = "HWIO"
) -> Float[Array, "b h_out w_out d"]:
    sides = (kernel.shape[layout.index(axis)] for axis in "HW")
    padding = [((side - 1) // 2, (side - 1) // 2) for side in sides]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", layout, "NHWC")
    )


def _extract_patches(
    x: Float[Array, "b h w c"], size: int, stride: int
) -> Float[Array, "b h_out w_out iic"]:
    """The kernel's input at each output position (im2col)."""
    b, h, w, c = x.shape
    r = (size - 1) // 2
    rows, columns = range(0, h + 2 * r - size + 1, stride), range(0, w + 2 * r - size + 1, stride)
    if size > 1 and h * w <= MAX_DENSE_IM2COL_PIXELS:
        matrix = np.einsum(
            "yih,xjw->yxijhw",
            _selection_matrix(rows, size, h),
            _selection_matrix(columns, size, w),
        )
        patches = jnp.einsum(
            "pq,bqc->bpc", matrix.reshape(-1, h * w), x.reshape(b, h * w, c), precision="highest"
        )
        return patches.reshape(b, len(rows), len(columns), size * size * c)
    padded = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
    slices = [
        padded[:, i : i + rows[-1] + 1 : stride, j : j + columns[-1] + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(slices, axis=-1)


def _selection_matrix(starts: range, size: int, n: int) -> Float[np.ndarray, "out i n"]:
    """1 where the i-th element of a kernel at starts[out] of the padded line reads cell n."""
    cells = np.array(starts)[:, None] + np.arange(size) - (size - 1) // 2
    return (cells[..., None] == np.arange(n)).astype(np.float32)


def _im2col(
    x: Float[Array, "b h w c"], kernel: Float[Array, "i i c d"], stride: int
) -> Float[Array, "b h_out w_out d"]:
    return _extract_patches(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[-1])


def _im2col_transposed(
    x: Float[Array, "b h w c"], kernel: Float[Array, "d i i c"], stride: int
) -> Float[Array, "b h_out w_out d"]:
    """The weights as the first factor of the product, which XLA does not repack."""
    patches = _extract_patches(x, kernel.shape[1], stride)
    d, (b, h, w, n) = len(kernel), patches.shape
    y = jax.lax.dot_general(
        kernel.reshape(d, n), patches.reshape(b * h * w, n), (((1,), (1,)), ((), ()))
    )
    # Without the barrier XLA swaps the factors to save the transposition.
    return jax.lax.optimization_barrier(y).T.reshape(b, h, w, d)


# Winograd's F(4×4, 3×3) (Lavin and Gray, 2016): 16 outputs from 36 products instead of 144.
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


def _combine(matrix: Sequence[Sequence[int]], arrays: Sequence[Array]) -> list[Array]:
    """Matrix times arrays, as additions that XLA fuses into one loop."""
    return [
        functools.reduce(operator.add, (a * x for a, x in zip(row, arrays, strict=True) if a))
        for row in matrix
    ]


def _winograd_kernel(kernel: Float[Array, "3 3 c d"]) -> Float[Array, "n n c d"]:
    transform = np.array(KERNEL, np.float32)
    return jnp.einsum("ni,mj,ijcd->nmcd", transform, transform, kernel, precision="highest")


def _winograd(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c d"], stride: int
) -> Float[Array, "b h w d"]:
    if stride != 1:
        raise ValueError(f"stride={stride} must be 1: the tiles are of neighbouring outputs")
    b, h, w, c = x.shape
    n, _, _, d = kernel.shape
    down, across = -(-h // TILE), -(-w // TILE)
    x = jnp.pad(x, [(0, 0), (1, TILE * down - h + 1), (1, TILE * across - w + 1), (0, 0)])
    rows = [x[:, i : i + TILE * (down - 1) + 1 : TILE] for i in range(n)]
    # Barriers keep the two directions apart: fused, the sums would be recomputed many times.
    x = jax.lax.optimization_barrier(jnp.stack(_combine(INPUT, rows)))
    columns = [x[..., j : j + TILE * (across - 1) + 1 : TILE, :] for j in range(n)]
    tiles = jnp.stack(_combine(INPUT, columns), axis=1).reshape(n * n, b * down * across, c)
    y = jnp.matmul(tiles, kernel.reshape(n * n, c, d)).reshape(n, n, b, down, across, d)
    y = jax.lax.optimization_barrier(jnp.stack(_combine(OUTPUT, list(y))))
    y = jnp.stack(_combine(OUTPUT, [y[:, j] for j in range(n)]))  # Column, row, b, down, across, d.
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(b, TILE * down, TILE * across, d)
    return y[:, :h, :w]


NATIVE = ConvAlgorithm(lambda kernel: kernel, _native)
CUDNN = ConvAlgorithm(
    lambda kernel: kernel.transpose(3, 0, 1, 2), functools.partial(_native, layout="OHWI")
)
IM2COL = ConvAlgorithm(lambda kernel: kernel, _im2col)
IM2COL_TRANSPOSED = ConvAlgorithm(lambda kernel: kernel.transpose(3, 0, 1, 2), _im2col_transposed)
WINOGRAD = ConvAlgorithm(_winograd_kernel, _winograd)


def select_algorithm(
    shape: tuple[int, ...], stride: int, dtype: DTypeLike, backend: str
) -> ConvAlgorithm:
    """The fastest algorithm for a kernel of this shape at small batches, as measured."""
    size, _, c, d = shape
    if backend == "gpu":
        return CUDNN
    if backend != "cpu" or dtype != jnp.float32 or c < 8:
        return NATIVE
    if size == 3 and stride == 1 and c <= 128:
        return WINOGRAD
    return IM2COL_TRANSPOSED if size * size * c * d >= MIN_TRANSPOSED_WEIGHTS else IM2COL
