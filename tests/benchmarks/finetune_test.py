import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import network_accuracy
from benchmarks.finetune import SAME_PERSON, development_paths, digit_number, kept_out
from benchmarks.real_images import Label, Sample, project


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("Dataset/0/IMG_5847.JPG", 5847),
        ("digits/9_img_1321.jpg", 1321),
        ("rps-cv-images/scissors/W7ij.png", None),
        ("my_img_12.mp4", None),
    ],
)
def test_digits_are_known_by_their_number(path, number):
    assert digit_number(path) == number


def test_people_of_development_photos_are_kept_out():
    """The ten digits of a person have consecutive numbers."""
    photos = [f"digits/{n % 10}_img_{n}.jpg" for n in range(1000, 1100)] + ["clip.mp4"]
    found = kept_out(photos, ["Dataset/4/IMG_1054.JPG", "rps/rock.png"])
    assert {f"digits/{n % 10}_img_{n}.jpg" for n in range(1050, 1060)} <= found
    assert len(found) == 2 * SAME_PERSON + 1
    assert kept_out(photos, []) == set()


def test_development_photos_are_those_of_the_list(real):
    paths = development_paths(real)
    assert len(paths) == 19
    digits = [path.name for path in (real / "digits").iterdir()]
    found = kept_out(digits, paths)
    assert {digit_number(path) for path in paths} <= {digit_number(name) for name in found}
    assert 190 < len(found) < 400 < len(digits) - len(found)


def test_scores_are_relative_to_the_labels_box(monkeypatch):
    k = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    joints_m = np.random.default_rng(0).uniform(-0.1, 0.1, (21, 3)) + np.array([0, 0, 0.5])
    label = Label(project(joints_m, k), "right", joints_m)
    samples = [Sample("a", "s", np.zeros((100, 100, 3), np.uint8), k, [label])]
    shift_px = np.array([0.15 * label.size_px, 0])
    moved_m = joints_m + np.outer(joints_m[:, 2], np.array([shift_px[0] / 100, 0, 0]))
    hands = SimpleNamespace(
        joints_m=moved_m[None].astype(np.float32),
        intrinsics=k,
        landmarks_px=(label.landmarks_px + 2 * shift_px)[None],
    )
    monkeypatch.setattr(network_accuracy, "look", lambda *_, **__: hands)
    scores = network_accuracy.score_real(None, samples, as_predicted=False)
    assert scores["nme_mean"] == pytest.approx(0.15, abs=1e-4)
    assert scores["landmarks_nme_mean"] == pytest.approx(0.3, abs=1e-4)
    assert (scores["pck_01"], scores["pck_02"]) == (0, 1)
    assert scores["pa_mpjpe_mm"] > 0
    json.dumps(scores)
