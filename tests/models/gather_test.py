import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.models.gather import Rows, gathered, scattered, sums_by_row, take_rows

N, B, C = 5, 2, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rows(rng):
    """Some rows are read often, row 4 never."""
    return Rows(np.where(rng.random((7, 2)) < 0.5, 1, rng.integers(0, N - 1, (7, 2))))


def test_readers_are_the_places_that_hold_a_row(rows):
    readers = rows.readers(N)
    flat = rows.indices.ravel()
    for row in range(N):
        places = readers[row][readers[row] >= 0]
        np.testing.assert_array_equal(places, np.flatnonzero(flat == row))
    assert (readers[4] == -1).all()


@pytest.mark.parametrize("formulation", [scattered, gathered])
def test_each_backends_sums_are_those_of_a_loop(rng, rows, formulation):
    values = rng.normal(size=(B, rows.indices.size, C)).astype(np.float32)
    want = np.zeros((B, N, C))
    for place, row in enumerate(rows.indices.ravel()):
        want[:, row] += values[:, place]
    np.testing.assert_allclose(formulation(jnp.asarray(values), rows, N), want, atol=1e-6)


def test_rows_that_are_not_finite_stay_where_they_are(rows):
    """Filling up must not carry what another row holds, even times 0."""
    values = jnp.ones((1, rows.indices.size, 1)).at[0, 0].set(jnp.nan)
    sums = np.asarray(gathered(values, rows, N))[0, :, 0]
    spoilt = int(rows.indices.ravel()[0])
    assert np.isnan(sums[spoilt])
    assert np.isfinite(np.delete(sums, spoilt)).all()


def test_taking_and_its_slope_are_those_of_indexing(rng, rows):
    x = jnp.asarray(rng.normal(size=(B, N, C)), jnp.float32)
    slope = jnp.asarray(rng.normal(size=(B, *rows.indices.shape, C)), jnp.float32)
    taken, back = jax.vjp(lambda x: take_rows(x, rows.indices), x)
    want, want_back = jax.vjp(lambda x: x[:, rows.indices], x)
    np.testing.assert_array_equal(taken, want)
    np.testing.assert_allclose(back(slope)[0], want_back(slope)[0], atol=1e-6)


def test_a_program_for_a_gpu_holds_no_scatter(rng, rows):
    values = jnp.asarray(rng.normal(size=(B, *rows.indices.shape, C)), jnp.float32)
    program = jax.jit(lambda values: sums_by_row(values, rows, N))
    for platform, scatters in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = program.trace(values).lower(lowering_platforms=(platform,)).as_text()
        assert ("scatter" in text) == scatters
