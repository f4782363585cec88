import numpy as np
import pytest

from m3dhmr_jax.metrics.landmarks import landmark_scores


def test_every_landmark_of_a_valid_hand_counts_once():
    errors_px = np.array([[1.0, 2, 5, 5.1], [9, 9, 9, 10], [np.nan, 3, np.inf, 3]])
    scores = landmark_scores(errors_px, np.array([True, True, False]))
    assert set(scores) == {"landmark_error_px", "landmark_median_px", "pck_5px"}
    np.testing.assert_allclose(scores["landmark_error_px"], (13.1 + 37) / 8)
    np.testing.assert_allclose(scores["landmark_median_px"], (5.1 + 9) / 2)
    np.testing.assert_allclose(scores["pck_5px"], 3 / 8)


def test_what_no_score_can_be_made_of_is_named():
    errors_px = np.array([[1.0, 2], [np.nan, 3], [4, 5]])
    with pytest.raises(ValueError, match=r"sample 1 \(1 of 2\) has landmark errors.*not finite"):
        landmark_scores(errors_px, np.array([False, True, True]))
    with pytest.raises(ValueError, match="no valid sample among 3"):
        landmark_scores(errors_px, np.zeros(3, bool))
