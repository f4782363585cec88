import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.models.gather import (
    StaticIndices,
    _gather_add,
    _scatter_add,
    gather_rows,
    inverse_index,
    segment_sum,
)

N, B, C = 5, 2, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rows(rng):
    """Some rows are read often, row 4 never."""
    return StaticIndices(np.where(rng.random((7, 2)) < 0.5, 1, rng.integers(0, N - 1, (7, 2))))


def test_inverse_index_lists_the_readers_of_each_row(rows):
    inverse = inverse_index(rows.indices, N)
    flat = rows.indices.ravel()
    for row in range(N):
        positions = inverse[row][inverse[row] >= 0]
        np.testing.assert_array_equal(positions, np.flatnonzero(flat == row))
    assert (inverse[4] == -1).all()


@pytest.mark.parametrize("algorithm", [_scatter_add, _gather_add])
def test_segment_sum_matches_a_loop(rng, rows, algorithm):
    values = rng.normal(size=(B, rows.indices.size, C)).astype(np.float32)
    want = np.zeros((B, N, C))
    for position, row in enumerate(rows.indices.ravel()):
        want[:, row] += values[:, position]
    np.testing.assert_allclose(algorithm(jnp.asarray(values), rows, N), want, atol=1e-6)


def test_gather_add_confines_nan_to_its_segment(rows):
    """Padding must not carry another row's value, even times 0."""
    values = jnp.ones((1, rows.indices.size, 1)).at[0, 0].set(jnp.nan)
    sums = np.asarray(_gather_add(values, rows, N))[0, :, 0]
    segment = int(rows.indices.ravel()[0])
    assert np.isnan(sums[segment])
    assert np.isfinite(np.delete(sums, segment)).all()


def test_gather_rows_matches_indexing_and_its_vjp(rng, rows):
    x = jnp.asarray(rng.normal(size=(B, N, C)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(B, *rows.indices.shape, C)), jnp.float32)
    got, vjp = jax.vjp(lambda x: gather_rows(x, rows.indices), x)
    want, want_vjp = jax.vjp(lambda x: x[:, rows.indices], x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(vjp(cotangent)[0], want_vjp(cotangent)[0], atol=1e-6)


def test_gather_rows_rejects_forward_mode(rows):
    x = jnp.ones((B, N, C))
    with pytest.raises(TypeError):
        jax.jvp(lambda x: gather_rows(x, rows.indices), (x,), (x,))


@pytest.mark.parametrize(("platform", "scatters"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_segment_sum_scatters_only_on_cpu(rng, rows, platform, scatters):
    values = jnp.asarray(rng.normal(size=(B, *rows.indices.shape, C)), jnp.float32)
    program = jax.jit(lambda values: segment_sum(values, rows, N))
    text = program.trace(values).lower(lowering_platforms=(platform,)).as_text()
    assert ("scatter" in text) == scatters
