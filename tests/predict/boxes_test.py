import json

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.boxes import boxes_at, read_boxes

CSV = """image,x,y,width,height,handedness,frame
a/clip.mp4,1,2,30,40,left,
clip.mp4,5,6,7,8,,
clip.mp4,9,9,9,9,right,12
image.jpg,0.5,1e1,3,4,,
"""


def test_read_boxes_groups_rows_by_file_and_frame(tmp_path):
    (tmp_path / "boxes.csv").write_text(CSV)
    found = read_boxes(tmp_path / "boxes.csv", "right")
    assert {image: list(frames) for image, frames in found.items()} == {
        "clip.mp4": [0, 12],
        "image.jpg": [0],
    }
    first = found["clip.mp4"][0]
    np.testing.assert_array_equal(first.boxes_px, [[1, 2, 30, 40], [5, 6, 7, 8]])
    assert first.handedness == ("left", "right")
    np.testing.assert_array_equal(found["image.jpg"][0].boxes_px, [[0.5, 10, 3, 4]])


def test_read_boxes_accepts_the_mark_that_spreadsheets_write_first(tmp_path):
    (tmp_path / "boxes.csv").write_text(CSV, encoding="utf-8-sig")
    assert set(read_boxes(tmp_path / "boxes.csv", None)) == {"clip.mp4", "image.jpg"}


def test_boxes_apply_until_the_next_ones(tmp_path):
    (tmp_path / "boxes.csv").write_text(CSV)
    boxes = read_boxes(tmp_path / "boxes.csv", None)
    assert [len(boxes_at(boxes["clip.mp4"], i).boxes_px) for i in (0, 11, 12, 99)] == [2, 2, 1, 1]
    assert boxes_at(boxes["clip.mp4"], 0).handedness == ("left", None)
    later = {frame + 3: each for frame, each in boxes["clip.mp4"].items()}
    assert boxes_at(later, 2).boxes_px.shape == (0, 4)


def test_read_boxes_reads_json(tmp_path):
    rows = [{"image": "p.jpg", "x": 1, "y": 2, "width": 3, "height": 4, "handedness": None}]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    boxes = read_boxes(tmp_path / "boxes.json", "left")["p.jpg"][0]
    np.testing.assert_array_equal(boxes.boxes_px, [[1, 2, 3, 4]])
    assert boxes.handedness == ("left",)


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ("x,y,w,h", "1,2,3,4"),
        ("X, Y, Width, Height", "1,2,3,4"),
        ("x1,y1,x2,y2", "1,2,4,6"),
        ("xmin,ymin,xmax,ymax", "1,2,4,6"),
        ("Left;Top;Right;Bottom", "1;2;4;6,0"),
        ("width,height,class,xmin,ymin,xmax,ymax", "640,480,hand,1,2,4,6"),
    ],
)
def test_the_names_of_columns_say_what_a_box_is(tmp_path, header, numbers):
    separator = ";" if ";" in header else ","
    (tmp_path / "b.csv").write_text(f"image{separator}{header}\np.jpg{separator}{numbers}\n")
    boxes = read_boxes(tmp_path / "b.csv", None)["p.jpg"][0]
    np.testing.assert_array_equal(boxes.boxes_px, [[1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("name", "content", "value"),
    [
        ("b.csv", "image,x,y,width,height\np.jpg,1,2,3,x\n", r"b\.csv, line 2: height is 'x'"),
        ("b.csv", "image,x,y,x2,y2\np.jpg,1,2,3,4\n", "line 2 has x, x2, y, y2: .*exactly one"),
        ("b.csv", "image,x1,y1,width,height\np.jpg,1,2,3,4\n", "has height, width, x1, y1"),
        (
            "b.csv",
            "image,x,y,w,h,x1,y1,x2,y2\np.jpg,1,2,3,4,1,2,4,6\n",
            "h, w, x, x1, x2, y, y1, y2",
        ),
        ("b.csv", "image,x1,y1,x2,y2\np.jpg,5,2,3,4\n", "5,2,3,4: x2 must be larger than x1"),
        ("b.csv", "image\np.jpg\n", "none of the columns of a box"),
        ("b.csv", "x,y,width,height\n1,2,3,4\n", "no image"),
        ("b.csv", "", r"b\.csv contains no box"),
        ("b.csv", "image,x,y,width,height,handedness\np,1,2,3,4,both\n", "'both'"),
        ("b.json", "{", r"b\.json"),
        ("b.json", '{"image": 1}', r"b\.json"),
    ],
)
def test_read_boxes_rejects_invalid_content(tmp_path, name, content, value):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=value):
        read_boxes(tmp_path / name, "right")


def test_read_boxes_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv"):
        read_boxes(tmp_path / "none.csv", "right")
