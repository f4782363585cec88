from pathlib import Path

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.given import read_given
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.left_out import describe
from m3dhmr_jax.types import N_JOINTS


def input_of(name):
    return Input(name.rpartition(".")[0], name, Path(name))


INPUTS = [input_of(name) for name in ("a.jpg", "b.jpg", "more/c.jpg", "clip.mp4")]
HEADERS = {
    "boxes": "image,frame,x,y,width,height",
    "landmarks": ",".join(["image", "frame", *(f"{c}{i}" for i in range(N_JOINTS) for c in "xy")]),
}


def write_rows(path, kind, *rows):
    """A row for each (image, frame)."""
    n_numbers = HEADERS[kind].count(",") - 1
    lines = [f"{image},{frame}{',1' * n_numbers}" for image, frame in rows]
    path.write_text("\n".join([HEADERS[kind], *lines]))
    return path


def read(path, kind, inputs=INPUTS):
    boxes, landmarks = (path, None) if kind == "boxes" else (None, path)
    return read_given(boxes, landmarks, None, None, inputs)


@pytest.mark.parametrize("kind", ["boxes", "landmarks"])
def test_read_given_counts_what_matches_nothing(tmp_path, kind):
    rows = [("a.jpg", 0), ("a.jpg", 3), ("a.jpg", 4), ("x.jpg", 0), ("c.jpg", 0), ("clip.mp4", 9)]
    given = read(write_rows(tmp_path / "rows.csv", kind, *rows), kind)
    assert describe(given.left_out.items()) == (
        "2 rows of rows.csv for a later frame of a photo, which has only frame 0, "
        "1 row of rows.csv whose image is not among the inputs, "
        "1 photo without a row in rows.csv"
    )
    found = given.boxes_of(INPUTS[2]) if kind == "boxes" else given.landmarks_of(INPUTS[2])
    assert found is not None
    assert list(found) == [0]


@pytest.mark.parametrize("kind", ["boxes", "landmarks"])
def test_read_given_counts_nothing_if_all_match(tmp_path, kind):
    rows = [("a.jpg", 0), ("b.jpg", 0), ("c.jpg", 0), ("clip.mp4", 9)]
    assert not read(write_rows(tmp_path / "rows.csv", kind, *rows), kind).left_out


@pytest.mark.parametrize("kind", ["boxes", "landmarks"])
def test_read_given_rejects_files_of_which_no_row_can_be_used(tmp_path, kind):
    path = write_rows(tmp_path / "rows.csv", kind, ("x.jpg", 0), ("y.jpg", 0))
    with pytest.raises(UserError, match=r"x\.jpg, y\.jpg, and none"):
        read(path, kind)
    path = write_rows(tmp_path / "rows.csv", kind, ("a.jpg", 1), ("b.jpg", 1))
    with pytest.raises(UserError, match="counts from 0"):
        read(path, kind)


def test_read_given_rejects_rows_that_two_inputs_share(tmp_path):
    path = write_rows(tmp_path / "rows.csv", "boxes", ("a.jpg", 0))
    with pytest.raises(UserError, match=r"a\.jpg, and 2 inputs"):
        read(path, "boxes", [*INPUTS, input_of("more/a.jpg")])


def test_read_given_counts_masks(tmp_path):
    masks = tmp_path / "masks"
    (masks / "more").mkdir(parents=True)
    for name in ("a", "more/c", "z"):
        assert cv2.imwrite(str(masks / f"{name}.png"), np.ones((4, 4), np.uint8))
    given = read_given(None, None, masks, None, INPUTS[:3])
    assert given.masks == {"a": masks / "a.png", "more/c": masks / "more/c.png"}
    assert describe(given.left_out.items()) == (
        "1 mask in masks of no input, 1 photo without a mask in masks"
    )
