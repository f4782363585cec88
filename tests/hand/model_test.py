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
        ("faces", lambda a: changed(a, (5, 1), 778), r"0\.\.778"),
        ("faces", lambda a: changed(a, (5, 1), -1), r"-1\.\.777"),
        ("parents", lambda a: changed(a, 0, 0), r"parents=\[0, 0"),
        ("parents", lambda a: changed(a, 3, 4), r"parents=\[-1, 0, 1, 4"),
        ("skin_weights", lambda a: a * np.float32(0.9), "skin_weights.*0.1"),
        ("skin_weights", lambda a: changed(a, (0, 0), np.nan), "skin_weights.*nan"),
        ("regions", lambda a: changed(a, 9, 6), "regions.*6"),
    ],
)
def test_hand_model_rejects_inconsistent_values(field, change, message):
    hand = load_builtin()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hand, **{field: change(getattr(hand, field))})


@pytest.fixture
def no_shape_checker(monkeypatch):
    """Without the tests' shape checker, which would raise before the hand model does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("no_shape_checker")
@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("skin_weights", lambda a: a[:-1], r"skin_weights.*\(777, 16\)"),
        ("joint_regressor", lambda a: a[:16], r"joint_regressor.*\(16, 778\)"),
        ("pose_mean", lambda a: a[1:], r"pose_mean.*\(14, 3\)"),
        (
            "pose_basis",
            lambda _: np.zeros((45, 778, 3)),
            r"pose_basis.*\(45, 778, 3\)",
        ),
    ],
)
def test_hand_model_rejects_inconsistent_shapes(field, change, message):
    hand = load_builtin()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(hand, **{field: change(getattr(hand, field))})
