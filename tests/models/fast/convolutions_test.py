import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.models.fast.convolutions import (
    CUDNN,
    MANY_WEIGHTS,
    NATIVE,
    PATCHES_FIRST,
    WEIGHTS_FIRST,
    WINOGRAD,
    Convolution,
    cheapest,
)

FORMULATIONS = {
    "native": NATIVE,
    "cudnn": CUDNN,
    "patches": PATCHES_FIRST,
    "weights": WEIGHTS_FIRST,
    "winograd": WINOGRAD,
}


def by_definition(x, kernel, stride):
    """The definition, in float64: a sum over the places of the kernel."""
    size = kernel.shape[0]
    r = (size - 1) // 2
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (r, r), (r, r), (0, 0)))
    h, w = ((n - size) // stride + 1 for n in x.shape[1:3])
    return sum(
        x[:, i : i + stride * h : stride, j : j + stride * w : stride][:, :h, :w] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def answer(formulation, x, kernel, stride):
    def run(x, kernel):
        return Convolution(formulation, stride)(x, formulation.prepare(kernel))

    return jax.jit(run)(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))


PLACES = [(1, 1), (1, 2), (2, 2), (3, 1), (3, 2), (7, 2)]
CASES = [(name, *place) for name in ("patches", "weights") for place in PLACES]


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [*CASES, ("native", 2, 2), ("native", 3, 2), ("cudnn", 3, 2), ("winograd", 3, 1)],
)
@pytest.mark.parametrize(("b", "h", "w"), [(1, 8, 6), (2, 12, 10)])
def test_each_formulation_is_the_convolution(name, size, stride, b, h, w):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(b, h, w, 5)), rng.normal(size=(size, size, 5, 7))
    got = answer(FORMULATIONS[name], x, kernel, stride)
    want = by_definition(x, kernel, stride)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("h", "w"), [(1, 1), (5, 7)])
@pytest.mark.parametrize("name", ["patches", "weights", "winograd"])
def test_odd_sides_and_single_pixels_too(name, h, w):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, h, w, 5)), rng.normal(size=(3, 3, 5, 7))
    np.testing.assert_allclose(
        answer(FORMULATIONS[name], x, kernel, 1), by_definition(x, kernel, 1), atol=1e-4
    )


def test_winograd_refuses_strides():
    with pytest.raises(ValueError, match="stride=2 must be 1"):
        WINOGRAD.apply(jnp.zeros((1, 8, 8, 4)), jnp.zeros((6, 6, 4, 4)), 2)


def test_the_choice_is_a_function_of_shape_type_and_backend():
    f32 = jnp.float32
    assert cheapest((3, 3, 64, 64), 1, f32, "cpu") is WINOGRAD
    assert cheapest((3, 3, 64, 64), 2, f32, "cpu") is PATCHES_FIRST
    assert cheapest((1, 1, 64, 64), 1, f32, "cpu") is PATCHES_FIRST
    assert cheapest((3, 3, 512, 512), 1, f32, "cpu") is WEIGHTS_FIRST
    assert cheapest((1, 1, 512, MANY_WEIGHTS // 512), 1, f32, "cpu") is WEIGHTS_FIRST
    assert cheapest((7, 7, 3, 64), 2, f32, "cpu") is NATIVE
    assert cheapest((3, 3, 512, 512), 1, jnp.bfloat16, "cpu") is NATIVE
    assert cheapest((3, 3, 512, 512), 1, f32, "tpu") is NATIVE
    assert cheapest((3, 3, 512, 512), 1, f32, "gpu") is CUDNN
    assert cheapest((7, 7, 3, 64), 2, jnp.bfloat16, "gpu") is CUDNN


def test_equal_convolutions_compile_once():
    compiled = []

    def run(convolution, x, kernel):
        compiled.append(convolution)
        return convolution(x, kernel)

    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((1, 1, 2, 2))
    step = jax.jit(run, static_argnums=0)
    for _ in range(2):
        step(Convolution(PATCHES_FIRST, 1), x, kernel)
    assert len(compiled) == 1
