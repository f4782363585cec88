import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.frames import find_inputs, read_frames
from m3dhmr_jax.runtime.results_folder import ResultsFolder


def write_video(path, n, codec="mp4v", size=(64, 48)):
    """A video whose n-th frame is grey of 10 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, size)
    assert writer.isOpened()
    for i in range(n):
        writer.write(np.full((size[1], size[0], 3), 10 * i, np.uint8))
    writer.release()
    return path


def test_find_inputs_lists_folders_by_name_and_files_as_given(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "c.webp", "d.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.jpg").mkdir()
    inputs = find_inputs([str(tmp_path / "notes.txt"), str(tmp_path)])
    assert [i.source for i in inputs] == ["notes.txt", "a.png", "b.JPG", "c.webp", "d.mp4"]
    assert [i.is_video for i in inputs] == [False] * 4 + [True]


def test_find_inputs_expands_patterns_and_puts_the_camera_last(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.png", "deep/c.png", "x.jpg"):
        (tmp_path / name).touch()
    inputs = find_inputs([str(tmp_path / "**" / "*.png")], camera=1)
    assert [i.name for i in inputs] == ["a", "b", "c", "camera1"]
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
    (tmp_path / "a.png").touch()
    for name in ("~/a.png", "~", "~/*.png"):
        assert [each.path for each in find_inputs([name])] == [tmp_path / "a.png"]


def test_find_inputs_rejects_no_input():
    with pytest.raises(UserError, match=r"\[\]"):
        find_inputs([])


def test_find_inputs_takes_each_file_once_and_no_results(tmp_path):
    (tmp_path / "a.jpg").touch()
    with ResultsFolder(tmp_path / "out", "predict") as folder:
        folder.write("a_overlay.jpg", b"")
    (tmp_path / "out/mine.jpg").touch()
    names = [str(tmp_path / "a.jpg"), str(tmp_path), str(tmp_path / "out")]
    assert [each.source for each in find_inputs(names)] == ["a.jpg", "mine.jpg"]
    (tmp_path / "out/mine.jpg").unlink()
    with pytest.raises(UserError, match="1 are results"):
        find_inputs([str(tmp_path / "out/*.jpg")])


def test_read_frames_of_an_image_logs_its_conversion(tmp_path):
    assert cv2.imwrite(str(tmp_path / "p.png"), np.full((4, 5), 7, np.uint8))
    notes = []
    (frame,) = read_frames(find_inputs([str(tmp_path / "p.png")])[0], notes.append)
    np.testing.assert_array_equal(frame.image, np.full((4, 5, 3), 7))
    assert (frame.index, frame.intrinsics) == (0, None)
    assert "p.png" in notes[0]


def test_read_frames_of_a_video_are_in_order_with_times(tmp_path):
    video = write_video(tmp_path / "v.mp4", 8)
    frames = list(read_frames(find_inputs([str(video)])[0], print))
    assert [f.index for f in frames] == list(range(8))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(8) / 25, atol=1e-3)
    np.testing.assert_allclose([f.image.mean() for f in frames], 10 * np.arange(8), atol=5)
    assert frames[0].rate_hz == 25


def test_read_frames_can_stop_early(tmp_path):
    video = write_video(tmp_path / "v.avi", 8, "MJPG")
    stream = read_frames(find_inputs([str(video)])[0], print)
    next(stream)
    stream.close()


def test_read_frames_skips_and_counts_corrupted_frames(tmp_path):
    """Of a video of JPEGs, two of which are destroyed."""
    video = write_video(tmp_path / "v.avi", 8, "MJPG")
    content = bytearray(video.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 8
    for frame in (2, 5):
        content[starts[frame] : starts[frame] + 200] = bytes(200)
    video.write_bytes(content)
    stream = read_frames(find_inputs([str(video)])[0], print)
    found = [next(stream) for _ in range(6)]
    with pytest.raises(UserError, match=r"v\.avi: 2 .* 6"):
        next(stream)
    assert [f.index for f in found] == [0, 1, 3, 4, 6, 7]
    np.testing.assert_allclose([f.time_s for f in found], np.array([0, 1, 3, 4, 6, 7]) / 25)
    np.testing.assert_allclose([f.image.mean() for f in found], [0, 10, 30, 40, 60, 70], atol=5)


@pytest.mark.parametrize("content", [b"", b"no video", "truncated", "without frames"])
def test_read_frames_rejects_videos_without_frames(tmp_path, content):
    path = tmp_path / "v.mp4"
    if isinstance(content, str):
        complete = write_video(path, 0 if content == "without frames" else 8).read_bytes()
        path.write_bytes(complete[: len(complete) // 2] if content == "truncated" else complete)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"v\.mp4"):
        list(read_frames(find_inputs([str(path)])[0], print))


def test_read_frames_rejects_a_missing_camera():
    with pytest.raises(UserError, match="camera 93"):
        list(read_frames(find_inputs([], camera=93)[0], print))
