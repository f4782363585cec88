import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.models.fast.convolutions import (
    CUDNN,
    IM2COL,
    IM2COL_TRANSPOSED,
    MIN_TRANSPOSED_WEIGHTS,
    NATIVE,
    WINOGRAD,
    Convolution,
    select_algorithm,
)

ALGORITHMS = {
    "native": NATIVE,
    "cudnn": CUDNN,
    "im2col": IM2COL,
    "im2col_transposed": IM2COL_TRANSPOSED,
    "winograd": WINOGRAD,
}


def direct_convolution(x, kernel, stride):
    """The definition, in float64: a sum over the kernel's elements."""
    size = kernel.shape[0]
    r = (size - 1) // 2
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (r, r), (r, r), (0, 0)))
    h, w = ((n - size) // stride + 1 for n in x.shape[1:3])
    return sum(
        x[:, i : i + stride * h : stride, j : j + stride * w : stride][:, :h, :w] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def convolve(algorithm, x, kernel, stride):
    def run(x, kernel):
        return Convolution(algorithm, stride)(x, algorithm.pack_weights(kernel))

    return jax.jit(run)(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))


SIZES_AND_STRIDES = [(1, 1), (1, 2), (2, 2), (3, 1), (3, 2), (7, 2)]
CASES = [(name, *case) for name in ("im2col", "im2col_transposed") for case in SIZES_AND_STRIDES]


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [*CASES, ("native", 2, 2), ("native", 3, 2), ("cudnn", 3, 2), ("winograd", 3, 1)],
)
@pytest.mark.parametrize(("b", "h", "w"), [(1, 8, 6), (2, 12, 10)])
def test_algorithm_matches_direct_convolution(name, size, stride, b, h, w):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(b, h, w, 5)), rng.normal(size=(size, size, 5, 7))
    got = convolve(ALGORITHMS[name], x, kernel, stride)
    want = direct_convolution(x, kernel, stride)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("h", "w"), [(1, 1), (5, 7)])
@pytest.mark.parametrize("name", ["im2col", "im2col_transposed", "winograd"])
def test_algorithm_matches_at_odd_sizes(name, h, w):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, h, w, 5)), rng.normal(size=(3, 3, 5, 7))
    np.testing.assert_allclose(
        convolve(ALGORITHMS[name], x, kernel, 1), direct_convolution(x, kernel, 1), atol=1e-4
    )


def test_winograd_rejects_strides():
    with pytest.raises(ValueError, match="stride=2"):
        WINOGRAD.apply(jnp.zeros((1, 8, 8, 4)), jnp.zeros((6, 6, 4, 4)), 2)


def test_select_algorithm_by_shape_dtype_and_backend():
    f32 = jnp.float32
    assert select_algorithm((3, 3, 64, 64), 1, f32, "cpu") is WINOGRAD
    assert select_algorithm((3, 3, 64, 64), 2, f32, "cpu") is IM2COL
    assert select_algorithm((1, 1, 64, 64), 1, f32, "cpu") is IM2COL
    assert select_algorithm((3, 3, 512, 512), 1, f32, "cpu") is IM2COL_TRANSPOSED
    assert (
        select_algorithm((1, 1, 512, MIN_TRANSPOSED_WEIGHTS // 512), 1, f32, "cpu")
        is IM2COL_TRANSPOSED
    )
    assert select_algorithm((7, 7, 3, 64), 2, f32, "cpu") is NATIVE
    assert select_algorithm((3, 3, 512, 512), 1, jnp.bfloat16, "cpu") is NATIVE
    assert select_algorithm((3, 3, 512, 512), 1, f32, "tpu") is NATIVE
    assert select_algorithm((3, 3, 512, 512), 1, f32, "gpu") is CUDNN
    assert select_algorithm((7, 7, 3, 64), 2, jnp.bfloat16, "gpu") is CUDNN


def test_equal_convolutions_compile_once():
    compiled = []

    def run(convolution, x, kernel):
        compiled.append(convolution)
        return convolution(x, kernel)

    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 2))
    step = jax.jit(run, static_argnums=0)
    for _ in range(2):
        step(Convolution(IM2COL, 1), x, kernel)
    assert len(compiled) == 1
