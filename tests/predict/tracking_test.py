import numpy as np
import pytest

from m3dhmr_jax.predict.boxes import Targets
from m3dhmr_jax.predict.predictor import PredictedHands
from m3dhmr_jax.predict.tracking import Tracker, is_no_hand

SIZE = 640, 480


def seen(*middles, side_px=100.0, noise_px=1.0):
    """Hands that are seen around these places."""
    k, grid = len(middles), np.linspace(-0.5, 0.5, 21)
    around = side_px * np.stack([grid, grid[::-1]], axis=1)
    seen_px = np.array(middles).reshape(k, 1, 2) + around
    return PredictedHands(
        verts_m=np.concatenate([seen_px, np.ones((k, 21, 1))], axis=2),  # As K is unity.
        joints_m=np.zeros((k, 21, 3)),
        landmarks_px=seen_px,
        root_m=np.zeros((k, 3)),
        root_covariance_m2=np.zeros((k, 3, 3)),
        noise_px=np.full(k, noise_px),
        faces=np.zeros((k, 1, 3), int),
        is_left=np.zeros(k, bool),
        square_px=np.zeros((k, 4)),
        intrinsics=np.eye(3),
        camera_is_assumed=True,
    )


def test_all_of_the_first_frame_and_then_where_the_hand_was():
    tracker = Tracker(None, "left", follows=True)
    assert tracker.look_at(0) == (None, ("left",))
    tracker.saw(seen((200, 150)), *SIZE)
    boxes_px, sides = tracker.look_at(1)
    np.testing.assert_allclose(boxes_px, [[150.5, 100.5, 100, 100]])
    assert sides == ("left",)
    tracker.saw(seen((200, 150), noise_px=50.0), *SIZE)
    assert tracker.look_at(2)[0] is None
    assert tracker.losses == 1


def test_given_boxes_count_from_their_frame_on():
    first = Targets(np.array([[100.0, 100, 50, 50], [300, 100, 50, 50]]), ("left", "right"))
    later = Targets(np.array([[10.0, 10, 90, 90]]), ("right",))
    tracker = Tracker({2: first, 4: later}, "right", follows=True)
    for index in (0, 1):
        boxes_px, sides = tracker.look_at(index)
        assert (boxes_px.shape, sides) == ((0, 4), ())
        tracker.saw(seen(), *SIZE) if index else None
    np.testing.assert_array_equal(tracker.look_at(2)[0], first.boxes_px)
    tracker.saw(seen((130, 130), (900, 130)), *SIZE)  # The second one left the photo.
    boxes_px, sides = tracker.look_at(3)
    assert np.abs(boxes_px[0, :2] + boxes_px[0, 2:] / 2 - 130.5).max() < 1e-6
    np.testing.assert_array_equal(boxes_px[1], first.boxes_px[1])
    assert sides == ("left", "right")
    np.testing.assert_array_equal(tracker.look_at(4)[0], later.boxes_px)


def test_boxes_stay_where_they_are_unless_they_follow():
    given = {0: Targets(np.array([[100.0, 100, 50, 50]]), ("left",))}
    tracker = Tracker(given, "right", follows=False)
    tracker.look_at(0)
    tracker.saw(seen((300, 300)), *SIZE)
    np.testing.assert_array_equal(tracker.look_at(1)[0], given[0].boxes_px)


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
def test_what_is_no_hand_is_not_followed(box_px, noise_px):
    assert is_no_hand(np.array(box_px), noise_px, *SIZE)
    assert not is_no_hand(np.array([100.0, 100, 100, 90]), 1.0, *SIZE)
