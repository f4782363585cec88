import dataclasses

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.capsules import fit_capsules
from m3dhmr_jax.synthetic import gestures
from m3dhmr_jax.synthetic.kinematics import pose
from m3dhmr_jax.synthetic.poses import (
    PENETRATION_LIMIT_M,
    hand_rotations,
    penetration_m,
    sample_articulation,
)
from m3dhmr_jax.synthetic.recipe import NATURAL

NO_SHAPE = np.zeros(10)


def joints_of(rotations):
    hand = load_builtin()
    return hand.joint_regressor @ pose(hand, rotations, NO_SHAPE).verts_m


def straightness_of(rotations):
    """Distance from base to tip over the bones' length; thumb first."""
    fingers = joints_of(rotations)[1:].reshape(5, 4, 3)
    bones = np.linalg.norm(np.diff(fingers, axis=1), axis=-1).sum(1)
    return np.linalg.norm(fingers[:, 3] - fingers[:, 0], axis=-1) / bones


def straightness(gesture, count=10):
    rng = np.random.default_rng(3)
    poses = [hand_rotations(gesture(rng), load_details(), NATURAL) for _ in range(count)]
    return np.array([straightness_of(rotations) for rotations in poses])


@pytest.mark.parametrize("gesture", [gestures.flat, gestures.spread])
def test_open_hands_have_straight_fingers(gesture):
    assert (straightness(gesture)[:, 1:] > 0.95).all()


def test_thumb_up_folds_all_but_the_thumb():
    straight = straightness(gestures.thumb_up)
    assert (straight[:, 0] > 0.95).all()
    assert (straight[:, 1:] < 0.75).all()


def test_counting_has_straight_and_other_fingers():
    is_straight = straightness(gestures.counting)[:, 1:] > 0.95
    assert is_straight.any(1).all()
    assert not is_straight.all(1).any()


def test_closed_fingers_are_nearer_than_spread_ones():
    def width(gesture):
        rng = np.random.default_rng(5)
        tips = [
            joints_of(hand_rotations(gesture(rng), load_details(), NATURAL))[[8, 20]]
            for _ in range(5)
        ]
        return np.linalg.norm(np.diff(tips, axis=1), axis=-1).mean()

    assert width(gestures.flat) < 0.75 * width(gestures.spread)


def test_pinch_takes_the_pose_whose_tips_touch():
    gaps = iter(np.linspace(0.03, -0.03, gestures.PINCH_CANDIDATES))
    tried = {}

    def tip_gap(finger_pose):
        tried[id(finger_pose)] = finger_pose, next(gaps)
        return tried[id(finger_pose)][1]

    chosen = gestures.pinch(np.random.default_rng(0), tip_gap)
    assert len(tried) == gestures.PINCH_CANDIDATES
    assert abs(tried[id(chosen)][1] - gestures.PINCH_GAP_M) < 0.003


def test_natural_articulations_hardly_penetrate():
    hand, details, capsules = load_builtin(), load_details(), fit_capsules(load_builtin())
    recipe, rng = dataclasses.replace(NATURAL, gesture_probability=1.0), np.random.default_rng(1)
    for number in range(40):
        is_grip = number % 4 == 0
        rotations = sample_articulation(rng, hand, details, capsules, NO_SHAPE, recipe, is_grip)
        assert penetration_m(hand, capsules, rotations, NO_SHAPE) <= PENETRATION_LIMIT_M
        assert not np.array_equal(rotations, details.relaxed)
        if is_grip:
            assert (straightness_of(rotations)[1:] < 0.9).all()
