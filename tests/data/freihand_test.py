import json
import shutil

import cv2
import numpy as np
import pytest

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError


@pytest.fixture
def folder(freihand_folder, tmp_path):
    """A copy that a test may corrupt."""
    return shutil.copytree(freihand_folder, tmp_path / "set")


def test_read_annotations_equals_the_files(freihand_folder):
    for split, part in freihand.FOLDERS.items():
        labels = freihand.read_annotations(freihand_folder, split)
        for name, read in zip(
            ("K", "xyz", "verts", "scale"),
            (labels.intrinsics, labels.joints_m, labels.verts_m, labels.scale_m),
            strict=True,
        ):
            wanted = json.loads((freihand_folder / f"{part}_{name}.json").read_text())
            np.testing.assert_array_equal(read, np.array(wanted, np.float32))


def test_count_images_and_annotations(freihand_folder):
    assert freihand.count_images(freihand_folder, "train") == 10
    assert freihand.count_annotations(freihand_folder, "train") == 5
    assert freihand.count_annotations(freihand_folder, "test") == 7


def test_mask_box_covers_the_hand_without_specks(tmp_path):
    mask = np.zeros((100, 120), np.uint8)
    mask[20:61, 30:50] = 255
    mask[70:90, 35:45] = 255  # A part of the hand behind an object.
    mask[5, 110] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    np.testing.assert_array_equal(freihand.mask_box_px(tmp_path / "mask.png"), [30, 20, 20, 70])


def test_mask_box_tolerates_jpeg_noise(freihand_folder):
    box = freihand.mask_box_px(freihand_folder / "training" / "mask" / "00000003.jpg")
    np.testing.assert_allclose(box, [60, 43, 90, 97], atol=1)


def test_centred_box_is_centred():
    x, y, width, height = freihand.centred_box_px(224, 260)
    assert (width, height) == (130, 130)
    assert x + width / 2 == 130
    assert y + height / 2 == 112


def test_mask_box_names_empty_and_unreadable_mask(tmp_path):
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(UserError, match=r"empty\.png"):
        freihand.mask_box_px(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"text\.jpg"):
        freihand.mask_box_px(tmp_path / "text.jpg")


def test_fingerprint_depends_on_content_only(freihand_folder, folder):
    before = freihand.fingerprint(freihand_folder)
    assert freihand.fingerprint(folder) == before
    path = folder / "training_xyz.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    changed_file = freihand.fingerprint(folder)
    shutil.copy(folder / "training/rgb/00000000.jpg", folder / "training/rgb/00000001.jpg")
    assert len({before, changed_file, freihand.fingerprint(folder)}) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "training/rgb"),
        (lambda f: shutil.rmtree(f / "training/mask"), "training/mask"),
        (
            lambda f: (f / "training/rgb/00000003.jpg").unlink(),
            r"00000003\.jpg",
        ),
        (
            lambda f: (f / "training/rgb/00000009.jpg").unlink(),
            "9 .* 5 ",
        ),
        (
            lambda f: [(f / f"training/mask/0000000{i}.jpg").unlink() for i in (1, 2, 3, 4)],
            "10 .* 1 .*1 to 4",
        ),
        (
            lambda f: (f / "training_scale.json").unlink(),
            r"training_scale\.json",
        ),
        (
            lambda f: (f / "training_K.json").write_text("[]"),
            r"training_K\.json: 0 .*5",
        ),
        (
            lambda f: (f / "training_xyz.json").write_text(
                (f / "training_xyz.json").read_text()[:-700]
            ),
            r"training_xyz\.json: record 4 .*5 records",
        ),
        (
            lambda f: (f / "training_verts.json").unlink(),
            r"training_verts\.json",
        ),
    ],
)
def test_read_annotations_names_what_is_wrong(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        freihand.read_annotations(folder, "train")


def test_a_folder_unpacked_too_deep_is_named(folder):
    with pytest.raises(UserError, match=f"training/rgb: .*It is in {folder}, a level deeper"):
        freihand.count_images(folder.parent, "train")
    (folder / "more").mkdir()
    (folder / "evaluation_K.json").rename(folder / "more" / "evaluation_K.json")
    with pytest.raises(UserError, match=f"It is in {folder / 'more'}, a level deeper"):
        freihand.annotation_paths(folder, "test")


@pytest.mark.parametrize("names", [("xyz", "verts"), ("verts",)])
def test_read_annotations_rejects_millimetres(folder, names):
    for name in names:
        path = folder / f"training_{name}.json"
        path.write_text(json.dumps((1000 * np.array(json.loads(path.read_text()))).tolist()))
    with pytest.raises(UserError, match=rf"training_{names[0]}\.json: .*in millimetres"):
        freihand.read_annotations(folder, "train")


def test_missing_evaluation_annotations_name_their_archive(folder):
    (folder / "evaluation_xyz.json").unlink()
    with pytest.raises(UserError, match=r"evaluation_xyz\.json.*FreiHAND_pub_v2_eval\.zip"):
        freihand.read_annotations(folder, "test")
