import os

import cv2
import numpy as np
import PIL.Image
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.inputs import Input, find_inputs
from m3dhmr_jax.predict.left_out import describe
from m3dhmr_jax.runtime.results_folder import ResultsFolder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_find_inputs_lists_folders_by_name_and_files_as_given(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", "c.webp", "d.mp4", "deeper.jpg/e.jfif")
    inputs, left_out = find_inputs([str(tmp_path / "notes.txt"), str(tmp_path)])
    names = ["notes.txt", "a.png", "b.JPG", "c.webp", "d.mp4", "deeper.jpg/e.jfif"]
    assert [i.source for i in inputs] == names
    assert [i.is_video for i in inputs] == [False] * 4 + [True, False]
    assert describe(left_out.items()) == "1 .txt"


def test_find_inputs_walks_subfolders_and_names_by_them(tmp_path):
    touch(tmp_path, "1.png", "2024/1.png", "2024/may/1.png", "2024/may/v.MTS")
    inputs = find_inputs([str(tmp_path)]).inputs
    assert [i.name for i in inputs] == ["1", "2024/1", "2024/may/1", "2024/may/v"]
    assert [i.file_name for i in inputs] == ["1.png", "1.png", "1.png", "v.MTS"]
    assert [i.path.relative_to(tmp_path).as_posix() for i in inputs] == [i.source for i in inputs]


@pytest.mark.parametrize("images", ["folder", "pattern"])
def test_find_inputs_counts_what_it_leaves_out(tmp_path, images):
    touch(tmp_path, "a.png", "b.txt", "more/c.TXT", "more/d.cr2", "README", ".hidden.jpg")
    touch(tmp_path, ".thumbnails/a.png")
    with ResultsFolder(tmp_path / "results", "predict") as folder:
        folder.write("a_overlay.jpg", b"")
    touch(tmp_path, "results/own.jpg")
    address = tmp_path if images == "folder" else tmp_path / "**" / "*"
    inputs, left_out = find_inputs([str(address)])
    assert [i.source for i in inputs] == ["a.png", "results/own.jpg"]
    hidden = "2 hidden files or folders, " if images == "folder" else ""
    want = f"{hidden}1 file without ending, 2 .txt, 1 .cr2, 2 results of earlier calls"
    assert sorted(describe(left_out.items()).split(", ")) == sorted(want.split(", "))


def test_find_inputs_takes_each_file_once_and_no_results(tmp_path):
    (tmp_path / "a.jpg").touch()
    with ResultsFolder(tmp_path / "out", "predict") as folder:
        folder.write("a_overlay.jpg", b"")
    (tmp_path / "out/mine.jpg").touch()
    names = [str(tmp_path / "a.jpg"), str(tmp_path), str(tmp_path / "out")]
    assert [each.source for each in find_inputs(names).inputs] == ["a.jpg", "mine.jpg"]
    (tmp_path / "out/mine.jpg").unlink()
    for name in ("out/*.jpg", "out/a_overlay.jpg", "out"):
        with pytest.raises(UserError, match=r"left out: .*results? of"):
            find_inputs([str(tmp_path / name)])


def test_find_inputs_names_what_was_left_out_if_nothing_is_left(tmp_path):
    touch(tmp_path, "a.txt", "b.txt")
    with pytest.raises(UserError, match=r"left out: 2 \.txt"):
        find_inputs([str(tmp_path)])


def test_find_inputs_expands_patterns_and_puts_the_camera_last(tmp_path):
    touch(tmp_path, "deep/c.png", "b.png", "a.png", "x.jpg")
    inputs = find_inputs([str(tmp_path / "**" / "*.png")], camera=1).inputs
    assert [i.name for i in inputs] == ["a", "b", "deep/c", "camera1"]
    assert inputs[-1].source == "camera 1"


@pytest.mark.parametrize("name", ["none.jpg", "*.png", "."])
def test_find_inputs_names_what_is_missing(tmp_path, name):
    with pytest.raises(UserError, match=tmp_path.name):
        find_inputs([str(tmp_path / name)])


def test_find_inputs_rejects_a_camera_that_cannot_be():
    with pytest.raises(UserError, match="--camera -1"):
        find_inputs([], -1)


def test_find_inputs_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path, "a.png")
    for name in ("~/a.png", "~", "~/*.png"):
        assert [each.path for each in find_inputs([name]).inputs] == [tmp_path / "a.png"]


def test_find_inputs_rejects_no_input():
    with pytest.raises(UserError, match=r"\[\]"):
        find_inputs([])


def test_find_inputs_takes_both_parts_of_live_photos(tmp_path):
    touch(tmp_path, "IMG_1.JPG", "IMG_1.MOV")
    inputs = find_inputs([str(tmp_path)]).inputs
    assert [(i.name, i.is_video) for i in inputs] == [("IMG_1", False), ("IMG_1", True)]


def test_find_inputs_takes_names_that_are_not_utf_8(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9.png"))
    (found,) = find_inputs([str(tmp_path)]).inputs
    assert found.source == "caf\\xe9.png"
    assert found.path.exists()
    with pytest.raises(UserError, match=r"caf\\xe9\.jpg"):
        find_inputs([os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")])


def test_input_is_a_video_by_its_content(tmp_path):
    frames = [PIL.Image.new("RGB", (8, 6), (i, 0, 0)) for i in (0, 99)]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 50}
    for kind in ("gif", "webp", "png", "avif"):
        frames[0].save(tmp_path / f"moving.{kind}", **moving)
        frames[0].save(tmp_path / f"still.{kind}")
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "photo.mp4", format="JPEG")
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "v.mp4").rename(tmp_path / "video.jpg")

    def is_video(name):
        return Input("x", name, tmp_path / name).is_video

    for kind in ("gif", "webp", "png", "avif"):
        assert is_video(f"moving.{kind}")
        assert not is_video(f"still.{kind}")
    assert is_video("video.jpg")
    assert not is_video("pages.tif")
    assert not is_video("photo.mp4")
