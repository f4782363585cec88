import json

import cv2
import numpy as np
import pytest

from m3dhmr_jax.data import freihand, loader
from m3dhmr_jax.datasets import check_hand_fits, prepare_folder
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.labelling.quality import TOO_SMALL
from m3dhmr_jax.labelling.run import label_files
from m3dhmr_jax.labelling.teacher import Teacher
from m3dhmr_jax.metrics.freihand import batch_metrics
from m3dhmr_jax.synthetic.camera import project
from tests.negatives import DRAWN


def content(folder):
    """Every file and its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read(folder):
    labels = json.loads((folder / "labels.json").read_text())
    parts = {part: freihand.read_annotations(folder, s) for s, part in freihand.FOLDERS.items()}
    return labels, parts


def records(labels, parts):
    """Each label with its row of the annotations."""
    for label in labels["hands"]:
        part, row = parts[label["split"]], int(label["image"][-12:-4])
        yield label, part.intrinsics[row], part.joints_m[row], part.verts_m[row]


def nearest(label, hands):
    """The true hand in the label's box, as the right hand that it is the mirror image of."""
    centre_px = np.array(label["box"][:2]) + np.array(label["box"][2:]) / 2
    return min(hands, key=lambda hand: np.linalg.norm(hand.placement.centre_px - centre_px))


def test_labels_are_near_the_truth_on_both_sides(finished_set, rendered):
    """After alignment, which removes the virtual camera's rotation."""
    labels, parts = read(finished_set)
    errors_mm, sides = [], set()
    for label, _, joints_m, verts_m in records(labels, parts):
        true = nearest(label, rendered.truth[label["source"]])
        side = true.placement.handedness
        assert (label["handedness"], label["mirrored"]) == (side, side == "left")
        mirror = np.array([-1 if side == "left" else 1, 1, 1], np.float32)
        points_m = joints_m, verts_m, true.scene.joints_m * mirror, true.scene.verts_m * mirror
        errors = batch_metrics(*(x[None].astype(np.float32) for x in points_m))
        errors_mm.append(1000 * float(np.mean(errors.joint_errors_al_m)))
        sides.add(side)
    assert sides == {"left", "right"}
    assert np.mean(errors_mm) < 11
    assert max(errors_mm) < 18


def test_hands_are_in_the_centre_of_images_like_freihand_s(finished_set):
    labels, parts = read(finished_set)
    for label, k, joints_m, _ in records(labels, parts):
        image = cv2.imread(str(finished_set / label["image"]))
        assert image.shape == (224, 224, 3)
        landmarks_px = project(joints_m, k)
        assert (abs(landmarks_px - 112) < 65).all()
        mask = cv2.imread(str(finished_set / label["image"].replace("rgb", "mask")), 0)
        at = np.round(landmarks_px).astype(int)
        assert (mask[at[:, 1], at[:, 0]] > 127).mean() > 0.8


def test_two_hands_in_one_image_are_both_labelled(finished_set):
    labels, _ = read(finished_set)
    both = [label for label in labels["hands"] if label["source"] == "two/2.jpg"]
    assert sorted(label["handedness"] for label in both) == ["left", "right"]


def test_small_hands_are_left_out_and_counted(finished_set):
    labels, _ = read(finished_set)
    (small,) = labels["left_out"]
    assert (small["source"], small["reason"]) == ("three/5.jpg", TOO_SMALL)
    assert labels["counts"] == {
        "images": 5,
        "images_without_hands": 0,
        "training": 3,
        "evaluation": 2,
        "mirrored": 2,
        "left_out": {TOO_SMALL: 1},
    }


def test_qualities_are_those_of_the_records(finished_set):
    labels, _ = read(finished_set)
    for part in ("training", "evaluation"):
        qualities = json.loads((finished_set / f"{part}_quality.json").read_text())
        assert qualities == [h["quality"] for h in labels["hands"] if h["split"] == part]
        assert all(0 < quality <= 1 for quality in qualities)


def test_folders_are_not_split(finished_set):
    labels, _ = read(finished_set)
    assert labels["split_by"] == "source"
    folders = [
        {hand["source"].split("/")[0] for hand in labels["hands"] if hand["split"] == part}
        for part in ("training", "evaluation")
    ]
    assert folders == [{"one"}, {"two"}]


@pytest.mark.long
def test_a_set_is_prepared_and_loaded_as_freihand_is(finished_set, tmp_path):
    data = prepare_folder(finished_set, tmp_path / "prepared")
    check_hand_fits(data, load_builtin())
    record = loader.open_split(data, "train")[0]
    _, parts = read(finished_set)
    np.testing.assert_array_equal(record["verts"], parts["training"].verts_m[0])
    x, y, width, height = record["bbox"]
    assert 100 <= max(width, height) <= 110
    np.testing.assert_allclose([x + width / 2, y + height / 2], 112, atol=2)


class Stopping(Teacher):
    """A teacher that is interrupted after some images."""

    def __init__(self, teacher, after):
        self.__dict__, self._left = teacher.__dict__.copy(), after

    def __call__(self, *arguments):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return super().__call__(*arguments)


@pytest.mark.long
def test_an_interrupted_call_is_continued_with_the_same_result(
    teacher, options, finished_set, tmp_path
):
    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        label_files(lambda: Stopping(teacher, 2), options, out)
    journal = out / "labelling.partial" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"source": "one/6.j')  # Killed while it wrote.
    with pytest.raises(UserError, match=r"split is 0\.2 and was 0\.4"):
        label_files(lambda: teacher, options._replace(split=0.2), out)
    label_files(lambda: Stopping(teacher, 3), options, out)
    assert content(out) == content(finished_set)


@pytest.mark.long
def test_an_interruption_of_the_last_step_is_repaired(
    teacher, options, finished_set, tmp_path, monkeypatch
):
    out = tmp_path / "set"

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("m3dhmr_jax.labelling.layout._count", fail)
        with pytest.raises(KeyboardInterrupt):
            label_files(lambda: teacher, options, out)
    assert not (out / "labels.json").exists()
    label_files(lambda: Stopping(teacher, 0), options, out)
    assert content(out) == content(finished_set)


def test_a_finished_set_and_other_files_are_refused(teacher, options, copied_set, tmp_path):
    before = content(copied_set)
    with pytest.raises(UserError, match="finished set"):
        label_files(lambda: teacher, options, copied_set)
    assert content(copied_set) == before
    other = tmp_path / "other"
    (other / "training").mkdir(parents=True)
    with pytest.raises(UserError, match="other files, such as training"):
        label_files(lambda: teacher, options, other)
    with pytest.raises(UserError, match="is a file"):
        label_files(lambda: teacher, options, copied_set / "labels.json")


@pytest.mark.long
def test_photos_without_hands_leave_nothing(teacher, options, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(2):
        image = DRAWN["text"](np.random.default_rng(i))
        assert cv2.imwrite(str(photos / f"{i}.png"), image)
    (photos / "broken.jpg").write_text("not an image")
    out = tmp_path / "deep" / "set"
    none = options._replace(photos=(str(photos),), images=options.images._replace(intrinsics=None))
    with pytest.raises(UserError, match=r"no hand was found: 2 images .* 1 files skipped"):
        label_files(lambda: teacher, none, out)
    assert not out.exists()


def test_only_small_hands_leave_nothing(teacher, options, tmp_path):
    with pytest.raises(UserError, match=r"no hand was kept: 1 images .* 1 smaller than 64 px"):
        label_files(lambda: teacher, options._replace(photos=("three",)), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.long
def test_unreadable_photos_are_skipped_and_named(teacher, options, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_text("not an image")
    some = options._replace(photos=("one", str(tmp_path / "photos")))
    (reason,) = label_files(lambda: teacher, some, tmp_path / "set")
    assert "broken.jpg is text and not an image" in reason
    labels, _ = read(tmp_path / "set")
    assert [skipped["reason"] for skipped in labels["skipped"]] == [reason]
    assert labels["split_by"] == "order"


@pytest.mark.long
def test_some_frames_of_a_video_are_labelled(teacher, rendered, options, tmp_path):
    """Two of each second; the last ones are for evaluation, as there is one video only."""
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (480, 360))
    for _ in range(12):
        writer.write(cv2.imread(str(rendered.folder / "one/1.jpg")))
    writer.release()
    clip = options._replace(photos=(str(video),), rate_hz=2.0, split=0.3)
    label_files(lambda: teacher, clip, tmp_path / "set")
    labels, _ = read(tmp_path / "set")
    found = [(label["frame"], label["split"]) for label in labels["hands"]]
    assert found == [(0, "training"), (5, "training"), (10, "evaluation")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": 0.0}, "--split 0 must lie between"),
        ({"split": 1.0}, "--split 1 must lie between"),
        ({"rate_hz": 0.0}, "--rate 0 must be positive"),
        ({"photos": ("none.jpg",)}, "none.jpg: no such image"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        label_files(pytest.fail, options._replace(**change), tmp_path / "set")
    assert not (tmp_path / "set").exists()
