import base64

import cv2
import numpy as np
import pytest

from m3dhmr_jax.evaluate.report.cases import Labelled, caption, data_uri, gallery, pick_cases
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics.freihand import SampleMetrics, batch_metrics
from m3dhmr_jax.types import CameraHands


def samples(per_hand_mm) -> SampleMetrics:
    field = np.tile(np.array(per_hand_mm, np.float32)[:, None] / 1000, (1, 778))
    joints = np.zeros((len(field), 21), np.float32)
    counts = np.zeros((len(field), 2, 2), np.int32)
    return SampleMetrics(joints, joints, joints, field, field, field, counts, counts)


def test_pick_cases_orders_best_median_worst():
    errors = np.random.default_rng(0).permutation(101)
    picked = pick_cases(samples(errors))
    assert [errors[row] for row in picked["best"]] == [0, 1, 2]
    assert [errors[row] for row in picked["median"]] == [49, 50, 51]
    assert [errors[row] for row in picked["worst"]] == [100, 99, 98]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_pick_cases_has_no_repeats_in_small_sets(count):
    picked = pick_cases(samples(range(count)))
    rows = [row for kind in picked.values() for row in kind]
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(range(count))
    assert 0 in picked["best"]


def test_data_uri_holds_image():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = (250, 20, 20)  # RGB: red on the left.
    head, _, content = data_uri(image).partition(",")
    assert head == "data:image/jpeg;base64"
    read = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    np.testing.assert_allclose(read[20, 10], (20, 20, 250), atol=12)


def test_gallery_shows_picked_samples(hand_batch):
    hand = load_builtin()
    projected = hand_batch.joints_m @ hand_batch.intrinsics.transpose(0, 2, 1)
    shift_m = 0.01 * np.arange(4, dtype=np.float32)[:, None, None]
    verts_m = hand_batch.verts_m * (1 + shift_m)
    joints_m = hand_batch.joints_m + shift_m * np.float32([0, 0, 1])
    predictions = CameraHands(
        projected[..., :2] / projected[..., 2:], joints_m, verts_m, np.zeros((4, 3, 3)), np.zeros(4)
    )
    errors = batch_metrics(joints_m, verts_m, hand_batch.joints_m, hand_batch.verts_m)
    read = []

    def labelled(row):
        read.append(row)
        return Labelled(hand_batch.image[row], hand_batch.intrinsics[row], hand_batch.verts_m[row])

    cards = gallery(SampleMetrics(*map(np.asarray, errors)), predictions, labelled, hand)
    assert sorted(read) == sorted(case.sample for kind in cards.values() for case in kind)
    case = cards["best"][0]
    assert case.caption == caption(case.sample, errors)
    assert f"#{case.sample} " in case.caption
    assert case.jpeg.startswith("data:image/jpeg;base64,")
    assert "root 30 mm" in caption(3, errors)
