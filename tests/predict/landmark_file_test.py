import json

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.landmark_file import COLUMNS, landmarks_at, read_landmarks

POINTS = np.arange(42.0).reshape(21, 2)


def test_read_landmarks_of_a_table(tmp_path):
    path = tmp_path / "hands.csv"
    row = ",".join(map(str, POINTS.ravel()))
    header = ",".join(["image", "frame", "handedness", *COLUMNS])
    path.write_text(f"{header}\nfolder/a.jpg,,left,{row}\na.jpg,3,,{row}\n")
    landmarks = read_landmarks(path, None)
    assert landmarks["a.jpg"][0].handedness == ("left",)
    assert landmarks["a.jpg"][3].handedness == ("right",)
    np.testing.assert_array_equal(landmarks["a.jpg"][0].landmarks_px, POINTS[None])
    assert landmarks_at(landmarks["a.jpg"], 1).landmarks_px.shape == (0, 21, 2)


def test_read_landmarks_of_json_and_of_predictions(tmp_path):
    rows = [{"image": "a.jpg", "landmarks_px": POINTS.tolist()}] * 2
    (tmp_path / "hands.json").write_text(json.dumps(rows))
    frame = {"image": "a.jpg", "frame": 2, "hands": [{**rows[0], "handedness": "right"}]}
    (tmp_path / "hands.jsonl").write_text(json.dumps(frame) + "\n")
    two = read_landmarks(tmp_path / "hands.json", "left")["a.jpg"][0]
    assert two.handedness == ("left", "left")
    assert read_landmarks(tmp_path / "hands.jsonl", "left")["a.jpg"][2].handedness == ("right",)


@pytest.mark.parametrize(
    ("name", "content", "value"),
    [
        ("a.csv", "image,x,y\na.jpg,1,2\n", "line 2 has no x0: a hand needs x0,y0 to x20,y20"),
        ("a.csv", f"image,{','.join(COLUMNS)}\na.jpg,{'1,' * 41}b\n", "line 2: y20 is 'b'"),
        ("a.csv", f"{','.join(COLUMNS)}\n{'1,' * 41}1\n", "no image"),
        ("a.json", '[{"image": "a.jpg"}]', "landmarks_px"),
        ("a.json", '[{"image": "a.jpg", "landmarks_px": [[1, 2]]}]', "21 pairs"),
        ("a.json", '[{"image": "a.jpg", "landmarks_px": {}}]', "21 pairs"),
        ("a.json", "[]", "no hand"),
        ("a.json", "{", "not JSON"),
        ("a.jsonl", '{"image": "a.jpg"}', "landmarks_px"),
    ],
)
def test_read_landmarks_rejects_other_files(tmp_path, name, content, value):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=value):
        read_landmarks(tmp_path / name, None)
    with pytest.raises(UserError, match="no such file"):
        read_landmarks(tmp_path / "none.csv", None)
