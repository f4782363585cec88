import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.boxes import HandBoxes
from m3dhmr_jax.predict.cameras import assumed_intrinsics
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.detector_weights import COMMAND
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.tracking import (
    COASTING_S,
    DETECTION_INTERVAL_S,
    MIN_SHAPE_STD,
    Tracker,
    is_lost,
)
from m3dhmr_jax.synthetic.photos import sample_photo
from m3dhmr_jax.synthetic.placement import Placement
from m3dhmr_jax.synthetic.recipe import QUICKSTART
from m3dhmr_jax.synthetic.scene import prepare_assets
from tests.predict.fake_predictor import IMAGE, FakePredictor, K, Seen

RATE_HZ = 30.0
LEFT = 0.01
HEIGHT, WIDTH, _ = IMAGE.shape


@pytest.fixture
def predictor():
    return FakePredictor()


@pytest.fixture
def show(predictor):
    """Shows frame after frame to a tracker; returns its hands and the calls of each frame."""

    def run(frames, given=None, handedness=None):
        tracker = Tracker(predictor, given, handedness)
        results, calls = [], []
        for i, hands in enumerate(frames):
            predictor.hands, predictor.calls = list(hands), []
            results.append(tracker(IMAGE, i, i / RATE_HZ, K))
            calls.append(set(predictor.calls))
        run.tracker = tracker
        return results, calls

    return run


def centres_of(hands):
    """Centre of each hand by its number, as `Seen` states it."""
    points_px = (hands.landmarks_px[:, 0] - [0, 50]).round().tolist()
    return dict(zip(hands.track.tolist(), map(tuple, points_px), strict=True))


def test_a_moving_hand_keeps_its_number(show):
    frames = [[Seen((100 + 12 * i, 200))] for i in range(40)]
    results, _ = show(frames)
    for frame, hands in zip(frames, results, strict=True):
        assert centres_of(hands) == {0: frame[0].centre_px}


def test_a_fast_hand_is_followed_to_where_it_is_expected(show):
    """It moves farther than a hand is followed, from frame to frame."""
    x = np.cumsum([0, *range(0, 70, 5), 70, 70])
    frames = [[Seen((20.0 + each, 200))] for each in x if each < 600]
    results, calls = show(frames)
    assert [list(hands.track) for hands in results] == [[0]] * len(frames)
    assert not any("find" in each for each in calls[1:])


def test_hands_are_looked_for_where_none_is_tracked_or_one_is_missing_and_every_second(show):
    first, second = Seen((100, 200)), Seen((400, 200))
    frames = [[]] * 3 + [[first, second]] * 40 + [[first]] * 30 + [[first, second]] * 40
    _, calls = show(frames)
    found = np.array(["find" in each for each in calls])
    interval = round(DETECTION_INTERVAL_S * RATE_HZ)
    coasting = round(COASTING_S * RATE_HZ)
    assert found[:4].all()  # None was there, and the first two.
    assert list(np.flatnonzero(found[4:43]) + 4) == [3 + interval]
    lost = 43
    assert found[lost + 1 : lost + coasting - 1].all()
    after = np.flatnonzero(found[lost + coasting + 1 :]) + lost + coasting + 1
    assert (np.diff(after) == interval).all()
    assert len(after) >= 1


def test_a_hand_that_appears_later_gets_the_next_number_within_a_second(show):
    first, second = Seen((100, 200)), Seen((400, 200), LEFT)
    results, _ = show([[first]] * 10 + [[first, second]] * 40)
    shown = [len(hands.track) for hands in results]
    assert shown == sorted(shown)
    assert 0 < shown.index(2) - 10 <= DETECTION_INTERVAL_S * RATE_HZ
    assert centres_of(results[-1]) == {0: first.centre_px, 1: second.centre_px}
    assert results[-1].handedness == ("right", "left")


def crossing(sides, front, hidden):
    """Two hands that pass each other; one is hidden for so many frames in the middle."""
    frames = []
    for i in range(61):
        x = 8.0 * (i - 30)
        hands = [Seen((320 + x, 200), sides[0]), Seen((320 - x, 212), sides[1])]
        frames.append([hands[front]] if abs(i - 30) < hidden / 2 else hands)
    return frames


@pytest.mark.parametrize("front", [0, 1])
@pytest.mark.parametrize("hidden", [0, 3, 9])
@pytest.mark.parametrize("sides", [(0.99, LEFT), (LEFT, 0.99), (0.99, 0.99), (LEFT, LEFT)])
def test_hands_that_cross_keep_their_numbers(show, sides, hidden, front):
    """By their sides, and by their motion where these are equal."""
    frames = crossing(sides, front, hidden)
    results, _ = show(frames)
    for i in (*range(20), *range(45, 61)):
        want = [hand.centre_px for hand in frames[i]]
        assert centres_of(results[i]) == dict(enumerate(want)), i
    if hidden:
        assert list(results[30].track) == [front]


def test_a_hand_keeps_its_number_where_another_one_goes_and_a_third_comes(show):
    """Also if the two far ones would suit it and the lost one better in sum."""
    first, second = Seen((300, 200)), Seen((540, 200))
    moved, third = Seen((380, 200)), Seen((100, 200))
    results, _ = show([[first, second]] * 3 + [[first]] + [[moved, third]] * 2)
    assert centres_of(results[-1]) == {0: moved.centre_px, 2: third.centre_px}


def test_a_hand_that_was_hidden_for_long_is_a_new_one(show):
    first, second = Seen((100, 200)), Seen((400, 200))
    gap = round(2 * COASTING_S * RATE_HZ)
    results, _ = show([[first, second]] * 5 + [[first]] * gap + [[first, second]] * 40)
    assert centres_of(results[-1]) == {0: first.centre_px, 2: second.centre_px}


def test_a_hand_that_is_found_twice_is_returned_once(show):
    hand = Seen((300, 200), presence=0.9)
    results, _ = show([[hand, Seen((303, 200), presence=0.8)]] * 3)
    assert [centres_of(hands) for hands in results] == [{0: hand.centre_px}] * 3


def test_what_does_not_look_like_a_hand_hides_none(show):
    results, _ = show([[Seen((300, 200), presence=0.2), Seen((306, 200))]])
    assert list(centres_of(results[0]).values()) == [(306, 200)]


def test_handedness_does_not_flip_for_one_odd_frame(show):
    right, left = Seen((300, 200), 0.9), Seen((300, 200), 0.1)
    results, _ = show([[right]] * 10 + [[left]] + [[right]] * 5 + [[left]] * 20)
    sides = [hands.handedness for hands in results]
    assert sides[:16] == [("right",)] * 16
    assert sides[-1] == ("left",)  # It was wrong in the beginning.
    assert {tuple(hands.track) for hands in results} == {(0,)}


def test_a_given_handedness_stays(show):
    results, _ = show([[Seen((300, 200), 0.9)]] * 40, handedness="left")
    assert {hands.handedness for hands in results} == {("left",)}
    assert np.isnan([hands.handedness_probability for hands in results]).all()


@pytest.mark.parametrize("std", [0.05, 0.7])
def test_the_shape_of_a_track_is_a_prior_for_its_next_frame(show, predictor, std):
    predictor.shape_std = std
    first, second = Seen((100, 200)), Seen((400, 200))
    results, _ = show([[first]] * 2)
    prior = predictor.candidates.shape
    np.testing.assert_array_equal(prior.mean, results[0].pose.shape)
    np.testing.assert_array_equal(prior.std, np.full((1, 3), max(std, MIN_SHAPE_STD)))
    show([[first]] * 30 + [[second, first]])  # One second later, both are found.
    prior = predictor.candidates.shape
    assert np.isnan(prior.mean[0]).all()  # Of the new one, nothing is known.
    np.testing.assert_array_equal(prior.mean[1], results[0].pose.shape[0])


def boxes(*rows, sides=None):
    return HandBoxes(np.array(rows, float).reshape(-1, 4), sides or (None,) * len(rows))


def test_boxes_give_one_row_each_from_their_frame_on(show):
    given = {
        2: boxes((60, 150, 100, 120), (360, 150, 100, 120), sides=("left", None)),
        6: boxes((10, 10, 90, 90), sides=("right",)),
    }
    first, second = Seen((100, 200)), Seen((400, 200), LEFT)
    results, calls = show([[first, second]] * 8, given)
    assert [list(hands.track) for hands in results] == [[]] * 2 + [[0, 1]] * 4 + [[0]] * 2
    assert {hands.handedness for hands in results[2:6]} == {("left", "left")}
    assert not any("find" in each for each in calls)
    np.testing.assert_array_equal(results[2].score, [1, 1])
    np.testing.assert_array_equal(results[6].score, [0])  # That box is empty.


def test_a_lost_hand_is_searched_for_in_its_box(show, predictor):
    given = {0: boxes((60, 150, 100, 120), (360, 150, 100, 120))}
    first = Seen((100, 200))
    away = [[first, Seen((400 + 8 * i, 200))] for i in range(10)]
    results, calls = show([*away, [first], [first], [first, Seen((400, 200))], *away[:3]], given)
    assert [list(hands.track) for hands in results] == [[0, 1]] * 16
    assert centres_of(results[9])[1] == (472, 200)  # It is followed out of its box.
    assert ["in_boxes" in each for each in calls] == [True] * 16
    assert [hands.score[1] for hands in results[9:13]] == [1, 0, 0, 1]
    assert show.tracker.losses == 1
    assert centres_of(results[-1]) == {0: first.centre_px, 1: (416, 200)}


def test_new_boxes_forget_the_hands_of_the_old_ones(show, predictor):
    """The hand in the new box is at rest, however far it is from one that was lost."""
    given = {0: boxes((60, 150, 100, 120)), 3: boxes((460, 150, 100, 120))}
    frames = [[Seen((100, 200))]] * 2 + [[]] + [[Seen((500, 200))]] * 3
    results, _ = show(frames, given)
    assert [hands.score.tolist() for hands in results] == [[1]] * 2 + [[0]] + [[1]] * 3
    assert centres_of(results[-1]) == {0: (500, 200)}


def test_boxes_outside_the_image_are_rejected(show):
    with pytest.raises(UserError, match=r"\(700, 5, 30, 30\)"):
        show([[]], {0: boxes((700, 5, 30, 30))})


@pytest.mark.parametrize(
    "change",
    [
        {"centre_px": (700.0, 100.0)},
        {"centre_px": (100.0, -80.0)},
        {"noise_px": 20.0},
        {"noise_px": float("nan")},
        {"presence": 0.4},
        {"presence": float("nan")},
    ],
)
def test_is_lost_detects_implausible_hands(predictor, change):
    for hand, is_wrong in (
        (Seen((100.0, 100.0)), False),
        (Seen((100.0, 100.0))._replace(**change), True),
    ):
        candidates = predictor._candidates([hand], (None,))
        hands = predictor.predict(IMAGE, candidates, np.eye(3))
        assert is_lost(hands, candidates.presence, WIDTH, HEIGHT).tolist() == [is_wrong]


@pytest.mark.parametrize("factor", [0.1, 14.0])
def test_is_lost_detects_implausible_sizes(predictor, factor):
    candidates = predictor._candidates([Seen((0.0, 0.0))], (None,))
    hands = predictor.predict(IMAGE, candidates, np.eye(3))
    for scale, is_wrong in ((1.0, False), (factor, True)):
        verts_m = hands.verts_m * [scale, scale, 1] + [320, 240, 0]
        scaled = hands._replace(verts_m=verts_m)
        assert is_lost(scaled, np.ones(1), WIDTH, HEIGHT).tolist() == [is_wrong]


def rendered(seed, size_px, *hands):
    """A photo with these hands, and the opacity of what belongs to them."""
    assets, rng = prepare_assets(load_builtin()), np.random.default_rng(seed)
    photo = sample_photo(rng, assets, hands, size_px, QUICKSTART)
    return photo.image, photo.coverage[..., None] / 255


def shifted(image, x_px, y_px):
    return cv2.warpAffine(image, np.array([[1.0, 0, x_px], [0, 1, y_px]]), image.shape[1::-1])


needs_detector = pytest.mark.skipif(
    not HandDetector.is_installed(), reason=f"no hand detector: {COMMAND}"
)


@pytest.mark.long
@needs_detector
def test_rendered_hands_keep_their_numbers_through_a_clip():
    """A photo that moves, turns and comes nearer over ten frames."""
    width, height = size_px = 480, 360
    hands = Placement("right", (150.0, 160.0), 150.0), Placement("left", (340.0, 180.0), 150.0)
    image, _ = rendered(0, size_px, *hands)
    tracker, k = Tracker(HandMeshPredictor(), None, None), assumed_intrinsics(width, height)
    first = None
    for i in range(10):
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 2.0 * i, 1 + 0.01 * i)
        matrix[0, 2] += 4 * i
        frame = cv2.warpAffine(image, matrix, size_px, borderMode=cv2.BORDER_REFLECT)
        hands = tracker(frame, i, i / RATE_HZ, k)
        assert hands.track.tolist() == [0, 1]
        first = first or hands
        want_px = first.landmarks_px @ matrix[:, :2].T + matrix[:, 2]
        assert np.linalg.norm(hands.landmarks_px - want_px, axis=-1).mean() < 0.05 * 150
        assert hands.handedness == first.handedness


@pytest.mark.long
@needs_detector
@pytest.mark.parametrize(("side", "seed"), [("left", 2), ("right", 3)])
def test_rendered_hands_that_cross_keep_their_numbers(side, seed):
    """The second one passes behind the first and is hidden for some frames."""
    size_px = 640, 480
    front, front_alpha = rendered(1, size_px, Placement("right", (320.0, 240.0), 170.0))
    back, back_alpha = rendered(seed, size_px, Placement(side, (320.0, 240.0), 170.0))
    background = cv2.GaussianBlur(front, (0, 0), 40)
    tracker, k = Tracker(HandMeshPredictor(), None, None), assumed_intrinsics(*size_px)
    shown = []
    for i in range(41):
        x_px, frame = 10 * (i - 20), background
        for image, alpha, shift in (
            (back, back_alpha, (-x_px, 12)),
            (front, front_alpha, (x_px, 0)),
        ):
            opacity = shifted(alpha, *shift)[..., None]
            frame = shifted(image, *shift) * opacity + frame * (1 - opacity)
        hands = tracker(frame.astype(np.uint8), i, i / RATE_HZ, k)
        shown.append(hands.track[np.argsort(hands.landmarks_px[:, 0, 0])].tolist())
    number, other = shown[0]
    assert {number, other} == {0, 1}
    assert shown[:15] == [[number, other]] * 15
    assert [number] in shown[15:30]  # The other one is hidden.
    assert shown[30:] == [[other, number]] * 11
