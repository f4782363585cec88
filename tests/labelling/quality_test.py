import numpy as np
import pytest

from m3dhmr_jax.labelling.quality import TOO_SMALL, Measures, reason_to_leave_out

GOOD = Measures(
    size_px=100,
    inside=1.0,
    disagreement=0.01,
    residual=0.01,
    quality=0.8,
    side_probability=0.98,
)


def test_a_good_hand_is_kept():
    assert reason_to_leave_out(GOOD) is None
    assert reason_to_leave_out(GOOD._replace(side_probability=np.nan)) is None  # It was given.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size_px": 63.9}, TOO_SMALL),
        ({"inside": 0.7}, "border"),
        ({"disagreement": 0.03}, "views disagree"),
        ({"disagreement": np.nan}, "views disagree"),
        ({"residual": 0.04}, "does not fit"),
        ({"quality": 0.3}, "unlike a hand"),
        ({"side_probability": 0.6}, "unsure"),
    ],
)
def test_each_measure_alone_leaves_a_hand_out(change, reason):
    assert reason in (reason_to_leave_out(GOOD._replace(**change)) or "")
