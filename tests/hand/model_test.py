import dataclasses

import jaxtyping
import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("faces", lambda a: changed(a, (5, 1), 778), r"name vertices 0\.\.778.*0\.\.777"),
        ("faces", lambda a: changed(a, (5, 1), -1), r"name vertices -1\.\.777"),
        ("parents", lambda a: changed(a, 0, 0), "must start with -1"),
        ("parents", lambda a: changed(a, 3, 4), "an earlier joint"),
        ("skin_weights", lambda a: a * np.float32(0.9), "must sum to 1, one is off by 0.1"),
        ("skin_weights", lambda a: changed(a, (0, 0), np.nan), "must sum to 1"),
        ("regions", lambda a: changed(a, 9, 6), r"expected 0\.\.5"),
    ],
)
def test_inconsistent_hand_is_refused(field, change, message):
    hand = load_builtin()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hand, **{field: change(getattr(hand, field))})


@pytest.fixture
def no_shape_checker(monkeypatch):
    """Users run without the checker of the tests, which would speak before the hand itself does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("no_shape_checker")
@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("skin_weights", lambda a: a[:-1], r"shape \(777, 16\), expected \(778, 16\)"),
        ("joint_regressor", lambda a: a[:16], r"shape \(16, 778\), expected \(21, 778\)"),
        ("pose_mean", lambda a: a[1:], r"shape \(14, 3\), expected \(15, 3\)"),
        (
            "pose_basis",
            lambda _: np.zeros((45, 778, 3)),
            r"\(45, 778, 3\), expected \(135, 778, 3\)",
        ),
    ],
)
def test_shape_that_disagrees_is_refused(field, change, message):
    hand = load_builtin()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hand, **{field: change(getattr(hand, field))})
