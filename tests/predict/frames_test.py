import os
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import PIL.Image
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.frames import read_frames
from m3dhmr_jax.predict.inputs import find_inputs


def write_video(path, n, codec="mp4v", size=(64, 48)):
    """A video whose n-th frame is grey of 10 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, size)
    assert writer.isOpened()
    for i in range(n):
        writer.write(np.full((size[1], size[0], 3), 10 * i, np.uint8))
    writer.release()
    return path


def test_read_frames_of_an_image_logs_its_conversion(tmp_path):
    assert cv2.imwrite(str(tmp_path / "p.png"), np.full((4, 5), 7, np.uint8))
    notes = []
    (frame,) = read_frames(find_inputs([str(tmp_path / "p.png")]).inputs[0], notes.append)
    np.testing.assert_array_equal(frame.image, np.full((4, 5, 3), 7))
    assert (frame.index, frame.intrinsics) == (0, None)
    assert "p.png" in notes[0]


def test_read_frames_of_a_video_are_in_order_with_times(tmp_path):
    video = write_video(tmp_path / "v.mp4", 8)
    frames = list(read_frames(find_inputs([str(video)]).inputs[0], print))
    assert [f.index for f in frames] == list(range(8))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(8) / 25, atol=1e-3)
    np.testing.assert_allclose([f.image.mean() for f in frames], 10 * np.arange(8), atol=5)
    assert frames[0].rate_hz == 25


def test_read_frames_can_stop_early(tmp_path):
    video = write_video(tmp_path / "v.avi", 8, "MJPG")
    stream = read_frames(find_inputs([str(video)]).inputs[0], print)
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
    stream = read_frames(find_inputs([str(video)]).inputs[0], print)
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
        list(read_frames(find_inputs([str(path)]).inputs[0], print))


def test_read_frames_rejects_a_missing_camera():
    with pytest.raises(UserError, match="camera 93"):
        list(read_frames(find_inputs([], camera=93).inputs[0], print))


def frames_of(path):
    return list(read_frames(find_inputs([str(path)]).inputs[0], print))


def write_varying(path, times_ms, codec="libx264", grey=20):
    """A video whose n-th frame is grey of n times `grey`, shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for i, time_ms in enumerate(times_ms):
            pixels = np.full((48, 64, 3), grey * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("mkv", "libx264"),
        ("mov", "libx264"),
        ("webm", "libvpx"),
        ("mts", "libx264"),
        ("ts", "libx264"),
        ("flv", "flv"),
        ("wmv", "wmv2"),
        ("3gp", "mpeg4"),
    ],
)
def test_read_frames_of_each_kind_at_varying_times(tmp_path, suffix, codec):
    times_ms = [0, 40, 80, 500, 520, 1500, 1530, 2600]
    frames = frames_of(write_varying(tmp_path / f"v.{suffix}", times_ms, codec))
    np.testing.assert_allclose([f.time_s for f in frames], np.array(times_ms) / 1000, atol=1e-3)
    np.testing.assert_allclose([f.image.mean() for f in frames], 20 * np.arange(8), atol=8)
    assert 1 <= frames[0].rate_hz <= 60


def test_read_frames_of_ogg(tmp_path):
    """Whose times are those of FFmpeg, a frame late here."""
    frames = frames_of(write_varying(tmp_path / "v.ogv", range(0, 320, 40), "libvpx"))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(8) * 0.04, atol=0.041)


def test_read_frames_tells_of_a_truncated_video(tmp_path):
    path = write_varying(tmp_path / "v.mkv", range(0, 4000, 40), grey=2)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"v\.mkv: \d+ corrupted frames were skipped"):
        frames_of(path)


@pytest.mark.parametrize(
    ("degrees", "matrix"),
    [(90, (0, 1, -1, 0)), (180, (-1, 0, 0, -1)), (270, (0, -1, 1, 0))],
)
def test_read_frames_turns_videos_by_their_marks(tmp_path, degrees, matrix):
    path = tmp_path / "v.mp4"
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = 255
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 48))
    for _ in range(3):
        writer.write(image)
    writer.release()
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (each << 16 for each in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    want = np.rot90(image, -degrees // 90)
    for frame in frames_of(path):
        assert frame.image.shape == want.shape
        assert np.abs(frame.image.astype(int) - want).mean() < 10


def test_read_frames_of_names_that_are_not_utf_8(tmp_path):
    video = write_video(tmp_path / "v.avi", 8, "MJPG")
    video = video.rename(tmp_path / os.fsdecode(b"caf\xe9.avi"))
    assert [f.index for f in frames_of(video)] == list(range(8))


def write_moving(path, n=4, durations=(40, 100, 400, 50)):
    """A moving image whose n-th frame is grey of 50 n with a darker half."""
    pixels = (
        np.full((n, 48, 64, 3), 50, np.uint8) * np.arange(n, dtype=np.uint8)[:, None, None, None]
    )
    pixels[:, :, 32:] //= 2
    frames = [PIL.Image.fromarray(each) for each in pixels]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(durations))
    return path


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_read_frames_of_a_moving_image_are_those_of_a_video(tmp_path, kind):
    frames = frames_of(write_moving(tmp_path / f"m.{kind}"))
    assert [f.index for f in frames] == list(range(4))
    np.testing.assert_allclose([f.time_s for f in frames], [0, 0.04, 0.14, 0.54])
    assert frames[0].rate_hz == pytest.approx(25)
    for i, frame in enumerate(frames):
        assert np.abs(frame.image[:, :31] - 50.0 * i).max() < 5
        assert np.abs(frame.image[:, 33:] - 25.0 * i).max() < 5


def test_read_frames_shows_frames_without_a_duration_for_a_tenth_of_a_second(tmp_path):
    frames = frames_of(write_moving(tmp_path / "m.gif", durations=(0, 10, 20, 0)))
    np.testing.assert_allclose([f.time_s for f in frames], [0, 0.1, 0.2, 0.22])


@pytest.mark.parametrize("kind", ["gif", "png"])
def test_read_frames_of_a_truncated_moving_image(tmp_path, kind):
    path = write_moving(tmp_path / f"m.{kind}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 30])
    with pytest.raises(UserError, match=rf"m\.{kind}.*(incomplete|damaged)"):
        frames_of(path)


def test_read_frames_of_pages_notes_the_later_ones(tmp_path):
    pages = [PIL.Image.new("RGB", (9, 7), (i, i, i)) for i in (10, 20, 30)]
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:])
    notes = []
    (frame,) = read_frames(find_inputs([str(tmp_path / "p.tif")]).inputs[0], notes.append)
    assert (frame.image == 10).all()
    assert "it has 3 images: only the first is read" in notes[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"<html>", "web page"), (b"\x00\x00\x00\x18ftypisom", "not a readable")],
)
def test_read_frames_says_why_a_video_is_not_read(tmp_path, content, reason):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(UserError, match=rf"v\.mp4 .*{reason}"):
        frames_of(tmp_path / "v.mp4")
