import base64
import dataclasses
import json
import re

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.labelling import review
from m3dhmr_jax.labelling.labelled_set import set_id


def labels_of(folder):
    return json.loads((folder / "labels.json").read_text())["hands"]


def test_a_page_shows_all_hands_worst_first(copied_set):
    (path,) = review.write_review(copied_set, load_builtin())
    page = path.read_text()
    shown = re.findall(r'<input type="checkbox" name="([^"]+)" checked>([\d.]+) · (\w+)', page)
    worst_first = sorted(labels_of(copied_set), key=lambda hand: hand["quality"])
    assert shown == [
        (hand["image"], f"{hand['quality']:.2f}", hand["handedness"]) for hand in worst_first
    ]
    assert f'data-set="{set_id(copied_set)}"' in page
    assert all(hand["source"] in page for hand in worst_first)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # It needs no other file.


def test_a_drawing_has_the_image_on_the_left_and_the_mesh_on_the_right(copied_set):
    (path,) = review.write_review(copied_set, load_builtin())
    jpeg = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', path.read_text())[0]
    drawing = cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), cv2.IMREAD_COLOR)
    assert drawing.shape == (288, 576, 3)
    worst = min(labels_of(copied_set), key=lambda hand: hand["quality"])["image"]
    image = cv2.imread(str(copied_set / worst))
    bare, drawn = drawing[:, :288], drawing[:, 288:]
    centre = cv2.resize(image, (448, 448), interpolation=cv2.INTER_CUBIC)[80:368, 80:368]
    assert abs(bare.astype(int) - centre).mean() < 4
    is_hand = cv2.imread(str(copied_set / worst.replace("rgb", "mask")), 0)
    is_hand = cv2.resize(is_hand, (448, 448))[80:368, 80:368] > 127
    difference = abs(drawn.astype(int) - centre).mean(axis=2)
    assert difference[is_hand].mean() > 8 * difference[~cv2_dilated(is_hand)].mean()


def cv2_dilated(mask):
    return cv2.dilate(mask.astype(np.uint8), np.ones((25, 25))) > 0


def test_pages_are_of_bounded_size(copied_set, monkeypatch):
    monkeypatch.setattr(review, "HANDS_PER_PAGE", 2)
    paths = review.write_review(copied_set, load_builtin())
    assert [path.name for path in paths] == ["review_1.html", "review_2.html", "review_3.html"]
    assert [path.read_text().count("<input") for path in paths] == [2, 2, 1]


def test_the_hand_must_be_that_of_the_labels(copied_set, tmp_path):
    other = dataclasses.replace(load_builtin(), verts_m=1.01 * load_builtin().verts_m)
    with pytest.raises(UserError, match="another hand model"):
        review.write_review(copied_set, other)
    with pytest.raises(UserError, match="not a finished set"):
        review.write_review(tmp_path, load_builtin())


@pytest.mark.long
def test_unticked_hands_are_saved_as_a_list(copied_set, chromium, tmp_path):
    (path,) = review.write_review(copied_set, load_builtin())
    context = chromium.new_context()
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    button = page.get_by_role("button")
    assert button.is_disabled()
    page.locator("label").nth(0).click()
    page.locator("label").nth(2).click()
    assert page.locator("output").inner_text() == "2 rejected"
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename == "rejected_1.json"
    download.value.save_as(tmp_path / "list.json")
    context.close()
    order = [h["image"] for h in sorted(labels_of(copied_set), key=lambda h: h["quality"])]
    content = json.loads((tmp_path / "list.json").read_text())
    assert content == {"set": set_id(copied_set), "rejected": [order[0], order[2]]}
    assert errors == []
