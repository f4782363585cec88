import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic.kinematics import pose
from m3dhmr_jax.synthetic.surface import wrist_rim
from m3dhmr_jax.synthetic.wear import sample_ring, sample_wristband


@pytest.fixture(scope="module")
def posed():
    return pose(load_builtin(), np.tile(np.eye(3), (16, 1, 1)), np.zeros(10))


def volume(item):
    """Positive for a closed surface whose faces are counter-clockwise from outside."""
    a, b, c = item.verts_m.astype(np.float64)[item.faces].transpose(1, 0, 2)
    return (a * np.cross(b, c)).sum() / 6


@pytest.mark.parametrize("seed", range(6))
def test_ring_fits_a_finger(posed, seed):
    ring = sample_ring(np.random.default_rng(seed), load_builtin(), posed)
    assert volume(ring) > 0
    size_m = np.ptp(ring.verts_m, axis=0)
    assert 0.012 < size_m[1:].max() < 0.03
    nearest_m = np.linalg.norm(ring.verts_m[:, None] - posed.verts_m[None], axis=-1).min(1)
    assert np.median(nearest_m) < 0.006


@pytest.mark.parametrize("seed", range(6))
def test_wristband_lies_on_the_wrist(posed, seed):
    rim_m = posed.verts_m[wrist_rim(load_builtin().faces)]
    items = sample_wristband(np.random.default_rng(seed), rim_m, posed)
    for item in items:
        assert volume(item) > 0
        assert np.linalg.norm(item.verts_m.mean(0) - rim_m.mean(0)) < 0.04
    if len(items) == 2:  # The watch is on the back, which is +y at rest.
        assert items[1].verts_m[:, 1].mean() > rim_m[:, 1].mean() + 0.01
