import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.metrics.landmarks import landmark_scores


def test_landmark_scores_count_valid_samples_only():
    errors_px = np.array([[1.0, 2, 5, 5.1], [9, 9, 9, 10], [np.nan, 3, np.inf, 3]])
    scores = landmark_scores(errors_px, np.array([True, True, False]))
    np.testing.assert_allclose(scores["landmark_error_px"], (13.1 + 37) / 8)
    np.testing.assert_allclose(scores["landmark_median_px"], (5.1 + 9) / 2)
    np.testing.assert_allclose(scores["pck_5px"], 3 / 8)


def test_landmark_scores_reject_nan_and_empty_sets():
    errors_px = np.array([[1.0, 2], [np.nan, 3], [4, 5]])
    with pytest.raises(UserError, match="sample 1 "):
        landmark_scores(errors_px, np.array([False, True, True]))
    with pytest.raises(UserError, match="none of 3 "):
        landmark_scores(errors_px, np.zeros(3, bool))
