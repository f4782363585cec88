import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.capsules import fit_capsules
from m3dhmr_jax.math3d import axis_rotation
from m3dhmr_jax.synthetic.kinematics import pose
from m3dhmr_jax.synthetic.poses import (
    MODES,
    PENETRATION_LIMIT_M,
    penetration_m,
    sample_articulation,
    sample_curls,
    segment_distance,
)
from m3dhmr_jax.synthetic.recipe import FULL

REST = np.tile(np.eye(3), (16, 1, 1))
NO_SHAPE = np.zeros(10)


@pytest.fixture(scope="module")
def capsules():
    return fit_capsules(load_builtin())


def test_segment_distance_matches_grid_search():
    rng = np.random.default_rng(0)
    fractions = np.linspace(0, 1, 400)[:, None]
    for _ in range(20):
        p, q, r, s = rng.normal(size=(4, 3))
        first, second = p + fractions * (q - p), r + fractions * (s - r)
        want = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
        assert segment_distance(p, q, r, s) == pytest.approx(want, abs=5e-3)


def test_penetration_is_zero_at_rest(capsules):
    assert penetration_m(load_builtin(), capsules, REST, NO_SHAPE) <= 1e-6


def test_penetration_detects_crossed_fingers(capsules):
    rotations = REST.copy()
    rotations[1] = axis_rotation(load_details().axes[1, 1], np.radians(-25))
    assert penetration_m(load_builtin(), capsules, rotations, NO_SHAPE) > PENETRATION_LIMIT_M


def test_flexion_bends_towards_palm():
    rotations = REST.copy()
    for joint in range(1, 13):
        rotations[joint] = axis_rotation(load_details().axes[joint, 0], np.radians(40))
    bent = pose(load_builtin(), rotations, NO_SHAPE).verts_m
    tips = [11, 83, 167, 237]  # Index to little.
    assert (bent[tips, 1] < load_builtin().verts_m[tips, 1] - 0.015).all()


def test_sample_articulation_limits_penetration(capsules):
    rng, at_rest = np.random.default_rng(1), 0
    for _ in range(60):
        shape = np.clip(rng.normal(size=10), -2, 2)
        rotations = sample_articulation(rng, load_builtin(), load_details(), capsules, shape, FULL)
        assert penetration_m(load_builtin(), capsules, rotations, shape) <= PENETRATION_LIMIT_M
        at_rest += np.array_equal(rotations, REST)
    assert at_rest == 0


@pytest.mark.parametrize("mode", MODES)
def test_sample_curls_are_fractions(mode):
    rng = np.random.default_rng(2)
    for _ in range(50):
        curls, thumb = sample_curls(rng, mode)
        assert curls.shape == (4, 2)
        assert (curls >= -0.05).all()
        assert (curls <= 1).all()
        assert 0 <= thumb <= 1
