import json
import shutil

import cv2
import numpy as np
import pytest

from m3dhmr_jax.data import freihand


@pytest.fixture
def folder(freihand_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(freihand_folder, tmp_path / "set")


def test_annotations_equal_the_lists(freihand_folder):
    for split, part in freihand.PARTS.items():
        labels = freihand.read_annotations(freihand_folder, split)
        for name, read in zip(
            ("K", "xyz", "verts", "scale"),
            (labels.intrinsics, labels.joints_m, labels.verts_m, labels.scale_m),
            strict=True,
        ):
            wanted = json.loads((freihand_folder / f"{part}_{name}.json").read_text())
            np.testing.assert_array_equal(read, np.array(wanted, np.float32))


def test_counts(freihand_folder):
    assert freihand.count_images(freihand_folder, "train") == 10
    assert freihand.count_annotations(freihand_folder, "train") == 5
    assert freihand.count_annotations(freihand_folder, "test") == 7


def test_mask_box_holds_the_hand_and_not_the_specks(tmp_path):
    mask = np.zeros((100, 120), np.uint8)
    mask[20:61, 30:50] = 255
    mask[70:90, 35:45] = 255  # A part of the hand behind an object.
    mask[5, 110] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    np.testing.assert_array_equal(freihand.mask_box_px(tmp_path / "mask.png"), [30, 20, 20, 70])


def test_mask_box_forgives_jpeg(freihand_folder):
    box = freihand.mask_box_px(freihand_folder / "training" / "mask" / "00000003.jpg")
    np.testing.assert_allclose(box, [60, 43, 90, 97], atol=1)


def test_centred_box_is_centred():
    x, y, width, height = freihand.centred_box_px(224, 260)
    assert (width, height) == (130, 130)
    assert x + width / 2 == 130
    assert y + height / 2 == 112


def test_an_empty_mask_and_a_file_that_is_no_image_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match=r"empty\.png: the mask is empty"):
        freihand.mask_box_px(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"text\.jpg: not a readable image"):
        freihand.mask_box_px(tmp_path / "text.jpg")


def test_fingerprint_follows_the_content_and_not_the_place(freihand_folder, folder):
    before = freihand.fingerprint(freihand_folder)
    assert freihand.fingerprint(folder) == before
    path = folder / "training_xyz.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    changed_list = freihand.fingerprint(folder)
    shutil.copy(folder / "training/rgb/00000000.jpg", folder / "training/rgb/00000001.jpg")
    assert len({before, changed_list, freihand.fingerprint(folder)}) == 3


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: shutil.rmtree(f), FileNotFoundError, r"rgb: no such folder; expected FreiHAND"),
        (lambda f: shutil.rmtree(f / "training/mask"), FileNotFoundError, "mask: no such folder"),
        (
            lambda f: (f / "training/rgb/00000003.jpg").unlink(),
            FileNotFoundError,
            r"rgb: 00000003\.jpg is missing",
        ),
        (
            lambda f: (f / "training/rgb/00000009.jpg").unlink(),
            ValueError,
            "training/rgb has 9 photos and training/mask has 5 masks",
        ),
        (
            lambda f: [(f / f"training/mask/0000000{i}.jpg").unlink() for i in (1, 2, 3, 4)],
            ValueError,
            "10 photos and training/mask has 1 masks; there must be 1 to 4",
        ),
        (
            lambda f: (f / "training_scale.json").unlink(),
            FileNotFoundError,
            r"training_scale\.json: no such annotation list",
        ),
        (
            lambda f: (f / "training_K.json").write_text("[]"),
            ValueError,
            r"training_K\.json: 0 records, expected 5, as many as there are masks",
        ),
        (
            lambda f: (f / "training_xyz.json").write_text(
                (f / "training_xyz.json").read_text()[:-700]
            ),
            ValueError,
            r"training_xyz\.json: .* 4 whole records .* 5 records were expected",
        ),
        (
            lambda f: (f / "training_verts.json").unlink(),
            FileNotFoundError,
            r"training_verts\.json: no such annotation list",
        ),
    ],
)
def test_damage_is_named(folder, damage, error, message):
    damage(folder)
    with pytest.raises(error, match=message):
        freihand.read_annotations(folder, "train")


def test_missing_evaluation_lists_tell_where_they_are(folder):
    (folder / "evaluation_xyz.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"FreiHAND_pub_v2_eval\.zip has it"):
        freihand.read_annotations(folder, "test")
