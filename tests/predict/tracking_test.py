import numpy as np
import pytest

from m3dhmr_jax.predict.boxes import HandBoxes
from m3dhmr_jax.predict.predictor import PredictedHands
from m3dhmr_jax.predict.tracking import Tracker, is_lost

SIZE = 640, 480


def hands_at(*centres, side_px=100.0, noise_px=1.0):
    """Hands that project around these pixels."""
    k, grid = len(centres), np.linspace(-0.5, 0.5, 21)
    around = side_px * np.stack([grid, grid[::-1]], axis=1)
    projected_px = np.array(centres).reshape(k, 1, 2) + around
    return PredictedHands(
        verts_m=np.concatenate([projected_px, np.ones((k, 21, 1))], axis=2),  # As K is unity.
        joints_m=np.zeros((k, 21, 3)),
        landmarks_px=projected_px,
        root_m=np.zeros((k, 3)),
        root_covariance_m2=np.zeros((k, 3, 3)),
        noise_px=np.full(k, noise_px),
        faces=np.zeros((k, 1, 3), int),
        handedness=("right",) * k,
        crop_px=np.zeros((k, 4)),
        intrinsics=np.eye(3),
        camera_is_assumed=True,
    )


def test_tracker_starts_with_the_whole_image_and_follows_the_hand():
    tracker = Tracker(None, "left", track=True)
    assert tracker.boxes_for(0) == (None, ("left",))
    tracker.update(hands_at((200, 150)), *SIZE)
    boxes_px, sides = tracker.boxes_for(1)
    np.testing.assert_allclose(boxes_px, [[150.5, 100.5, 100, 100]])
    assert sides == ("left",)
    tracker.update(hands_at((200, 150), noise_px=50.0), *SIZE)
    assert tracker.boxes_for(2)[0] is None
    assert tracker.losses == 1


def test_tracker_applies_given_boxes_from_their_frame_on():
    first = HandBoxes(np.array([[100.0, 100, 50, 50], [300, 100, 50, 50]]), ("left", "right"))
    later = HandBoxes(np.array([[10.0, 10, 90, 90]]), ("right",))
    tracker = Tracker({2: first, 4: later}, "right", track=True)
    for index in (0, 1):
        boxes_px, sides = tracker.boxes_for(index)
        assert (boxes_px.shape, sides) == ((0, 4), ())
        tracker.update(hands_at(), *SIZE)
    np.testing.assert_array_equal(tracker.boxes_for(2)[0], first.boxes_px)
    tracker.update(hands_at((130, 130), (900, 130)), *SIZE)  # The second one left the image.
    boxes_px, sides = tracker.boxes_for(3)
    assert np.abs(boxes_px[0, :2] + boxes_px[0, 2:] / 2 - 130.5).max() < 1e-6
    np.testing.assert_array_equal(boxes_px[1], first.boxes_px[1])
    assert sides == ("left", "right")
    np.testing.assert_array_equal(tracker.boxes_for(4)[0], later.boxes_px)


def test_tracker_keeps_boxes_without_track():
    given = {0: HandBoxes(np.array([[100.0, 100, 50, 50]]), ("left",))}
    tracker = Tracker(given, "right", track=False)
    tracker.boxes_for(0)
    tracker.update(hands_at((300, 300)), *SIZE)
    np.testing.assert_array_equal(tracker.boxes_for(1)[0], given[0].boxes_px)


@pytest.mark.parametrize(
    ("box_px", "noise_px"),
    [
        ([600.0, 100, 100, 90], 1.0),
        ([100.0, -80, 100, 90], 1.0),
        ([100.0, 100, 5, 4], 0.0),
        ([-900.0, -900, 2000, 2000], 1.0),
        ([100.0, 100, 100, 90], 11.0),
        ([100.0, 100, 100, 90], float("nan")),
    ],
)
def test_is_lost_detects_implausible_hands(box_px, noise_px):
    assert is_lost(np.array(box_px), noise_px, *SIZE)


def test_is_lost_accepts_a_hand_in_the_image():
    assert not is_lost(np.array([100.0, 100, 100, 90]), 1.0, *SIZE)
