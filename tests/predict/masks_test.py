import dataclasses

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.masks import boxes_of_masks, check_masks, find_masks, read_masks


def save(path, labels):
    assert cv2.imwrite(str(path), labels)
    return path


@pytest.fixture
def labels():
    labels = np.zeros((40, 50), np.uint8)
    labels[5:15, 10:30] = 1
    labels[20:22, 40:41] = 2
    return labels


def test_read_masks_tells_hands_apart_by_label(tmp_path, labels):
    path = save(tmp_path / "m.png", labels)
    for hands in (None, 2):
        np.testing.assert_array_equal(read_masks(path, hands), [labels == 1, labels == 2])
    np.testing.assert_array_equal(read_masks(path, 1), [labels > 0])
    third = read_masks(path, 3)
    assert third.shape == (3, 40, 50)
    assert not third[2].any()


def test_read_masks_takes_large_values_as_one_hand(tmp_path, labels):
    soft = cv2.GaussianBlur((labels == 1).astype(np.uint8) * 255, (5, 5), 0)
    np.testing.assert_array_equal(read_masks(save(tmp_path / "m.png", soft), None), [soft > 0])


def test_read_masks_accepts_grey_saved_in_colour(tmp_path, labels):
    path = save(tmp_path / "m.png", np.repeat(labels[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_masks(path, 2), [labels == 1, labels == 2])


def test_read_masks_rejects_one_mask_for_two_hands(tmp_path, labels):
    path = save(tmp_path / "m.png", (labels > 0).astype(np.uint8) * 255)
    with pytest.raises(UserError, match=r"m\.png .* 255 for 2"):
        read_masks(path, 2)


def test_read_masks_rejects_colours_and_other_files(tmp_path, labels):
    colours = np.stack([labels, labels, 1 - labels], axis=-1)
    with pytest.raises(UserError, match=r"c\.png has 3"):
        read_masks(save(tmp_path / "c.png", colours), None)
    (tmp_path / "t.png").write_text("text")
    with pytest.raises(UserError, match=r"t\.png"):
        read_masks(tmp_path / "t.png", None)


def test_boxes_of_masks_cover_their_pixels(labels):
    boxes_px = boxes_of_masks(np.stack([labels == 1, labels == 2]))
    np.testing.assert_array_equal(boxes_px, [[10, 5, 20, 10], [40, 20, 1, 2]])


def test_check_masks_takes_one_mask_for_one_hand(labels):
    np.testing.assert_array_equal(check_masks(labels, 40, 50), [labels > 0])
    with pytest.raises(UserError, match=r"50 x 40 px .* 40 x 50 px"):
        check_masks(labels, 50, 40)


def test_find_masks_rejects_videos_and_folders_without_masks(tmp_path, labels):
    image = Input("a", "a.jpg", tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png"):
        find_masks(tmp_path, [image])
    save(tmp_path / "a.png", labels)
    assert find_masks(tmp_path, [image, dataclasses.replace(image, name="b")]) == {
        "a": tmp_path / "a.png"
    }
    with pytest.raises(UserError, match=r"clip\.mp4, camera 0"):
        find_masks(
            tmp_path,
            [
                image,
                Input("clip", "clip.mp4", tmp_path / "clip.mp4"),
                Input("camera0", "camera 0", None, 0),
            ],
        )
    with pytest.raises(UserError, match="missing"):
        find_masks(tmp_path / "missing", [image])
