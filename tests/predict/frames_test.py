import cv2
import numpy as np
import pytest

from m3dhmr_jax.predict.frames import find_inputs, frames_of


def write_video(path, n, codec="mp4v", size=(64, 48)):
    """A video whose n-th frame is grey of 10 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, size)
    assert writer.isOpened()
    for i in range(n):
        writer.write(np.full((size[1], size[0], 3), 10 * i, np.uint8))
    writer.release()
    return path


def test_folders_give_their_photos_and_videos_by_name_and_files_themselves(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "c.webp", "d.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.jpg").mkdir()
    inputs = find_inputs([str(tmp_path / "notes.txt"), str(tmp_path)])
    assert [i.source for i in inputs] == ["notes.txt", "a.png", "b.JPG", "c.webp", "d.mp4"]
    assert [i.is_moving for i in inputs] == [False] * 4 + [True]


def test_patterns_give_what_they_match_and_a_camera_comes_last(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.png", "deep/c.png", "x.jpg"):
        (tmp_path / name).touch()
    inputs = find_inputs([str(tmp_path / "**" / "*.png")], camera=1)
    assert [i.name for i in inputs] == ["a", "b", "c", "camera1"]
    assert inputs[-1].source == "camera 1"


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.jpg: no such photo, video or folder"):
        find_inputs([str(tmp_path / "none.jpg")])
    with pytest.raises(FileNotFoundError, match=r"\*\.png: no such photo"):
        find_inputs([str(tmp_path / "*.png")])
    for nothing in ([str(tmp_path)], []):
        with pytest.raises(FileNotFoundError, match=r"no photo or video in \["):
            find_inputs(nothing)


def test_inputs_whose_results_would_overwrite_each_other_are_refused(tmp_path):
    for name in ("x.jpg", "x.mp4", "y.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="several photos or videos are named x, and results"):
        find_inputs([str(tmp_path)])


def test_a_photo_is_one_frame_and_its_conversion_is_said(tmp_path):
    assert cv2.imwrite(str(tmp_path / "p.png"), np.full((4, 5), 7, np.uint8))
    said = []
    (frame,) = frames_of(find_inputs([str(tmp_path / "p.png")])[0], said.append)
    np.testing.assert_array_equal(frame.image, np.full((4, 5, 3), 7))
    assert (frame.index, frame.intrinsics) == (0, None)
    assert "one channel" in said[0]


def test_a_video_is_its_frames_in_order_with_their_times(tmp_path):
    video = write_video(tmp_path / "v.mp4", 8)
    frames = list(frames_of(find_inputs([str(video)])[0], print))
    assert [f.index for f in frames] == list(range(8))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(8) / 25, atol=1e-3)
    np.testing.assert_allclose([f.image.mean() for f in frames], 10 * np.arange(8), atol=5)
    assert frames[0].rate_hz == 25


def test_frames_are_read_when_they_are_asked_for(tmp_path):
    video = write_video(tmp_path / "v.avi", 8, "MJPG")
    stream = frames_of(find_inputs([str(video)])[0], print)
    next(stream)
    stream.close()


def test_unreadable_frames_are_left_out_and_counted(tmp_path):
    """Of a video of JPEGs, two of which are destroyed."""
    video = write_video(tmp_path / "v.avi", 8, "MJPG")
    content = bytearray(video.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 8
    for frame in (2, 5):
        content[starts[frame] : starts[frame] + 200] = bytes(200)
    video.write_bytes(content)
    stream = frames_of(find_inputs([str(video)])[0], print)
    found = [next(stream) for _ in range(6)]
    with pytest.raises(ValueError, match=r"v\.avi: 2 frames could not be read .*, 6 were"):
        next(stream)
    assert [f.index for f in found] == [0, 1, 3, 4, 6, 7]
    np.testing.assert_allclose([f.time_s for f in found], np.array([0, 1, 3, 4, 6, 7]) / 25)
    np.testing.assert_allclose([f.image.mean() for f in found], [0, 10, 30, 40, 60, 70], atol=5)


@pytest.mark.parametrize("content", [b"", b"no video", "cut off", "without frames"])
def test_videos_without_frames_are_refused(tmp_path, content):
    path = tmp_path / "v.mp4"
    if isinstance(content, str):
        whole = write_video(path, 0 if content == "without frames" else 8).read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "cut off" else whole)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v\.mp4: (not a video|no frame)"):
        list(frames_of(find_inputs([str(path)])[0], print))


def test_a_camera_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="camera 93 does not open"):
        list(frames_of(find_inputs([], camera=93)[0], print))
