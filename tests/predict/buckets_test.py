import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.predict.buckets import run_in_buckets


@pytest.mark.parametrize(
    ("buckets", "n", "expected"),
    [((1, 2), 1, [1]), ((1, 2), 5, [2, 2, 1]), ((1, 2, 4, 8), 3, [4]), ((1, 2, 4, 8), 11, [8, 4])],
)
def test_rows_are_split_and_padding_is_dropped(buckets, n, expected):
    sizes = []

    def step(images, factor):
        sizes.append(len(images))
        return images[:, 0], {"sum": factor * images.sum(axis=1)}

    images = np.arange(n)[:, None].repeat(3, 1)
    first, rest = run_in_buckets(step, images, np.full(n, 2), buckets=buckets)
    np.testing.assert_array_equal(first, np.arange(n))
    np.testing.assert_array_equal(rest["sum"], 6 * np.arange(n))
    assert sizes == expected


def test_without_rows_nothing_is_computed():
    first = run_in_buckets(lambda x: jnp.sin(x).sum(axis=1), np.zeros((0, 3), np.float32))
    assert first.shape == (0,)
