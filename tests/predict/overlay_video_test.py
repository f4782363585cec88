import av
import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.overlay_video import OverlayVideo
from m3dhmr_jax.runtime.files import DiskFullError

TIMES_S = [0.5, 0.5333, 0.6, 1.9, 1.95, 4.2]


def write(path, drawings, times_s=None):
    height, width, _ = drawings[0].shape
    video = OverlayVideo(path, height, width)
    for i, drawing in enumerate(drawings):
        video.write(drawing, i / 25 if times_s is None else times_s[i])
    video.close()


def read(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode()]


@pytest.fixture
def noise():
    """Frames that a codec cannot make small."""
    return np.random.default_rng(0).integers(0, 256, (40, 120, 160, 3), np.uint8)


def test_frames_are_shown_at_their_times(tmp_path, noise):
    write(tmp_path / "v.mp4", noise[: len(TIMES_S)], TIMES_S)
    times_s = [time_s for time_s, _ in read(tmp_path / "v.mp4")]
    np.testing.assert_allclose(times_s, TIMES_S, atol=1e-5)


def test_equal_times_keep_both_frames(tmp_path, noise):
    write(tmp_path / "v.mp4", noise[:3], [0.0, 0.0, 0.1])
    times_s = [time_s for time_s, _ in read(tmp_path / "v.mp4")]
    np.testing.assert_allclose(times_s, [0, 0, 0.1], atol=1e-4)


@pytest.mark.parametrize("shape", [(120, 160), (121, 161), (17, 9), (1, 1)])
def test_drawings_keep_their_pixels_and_colours(tmp_path, shape):
    """The added row and column of odd sizes repeat their neighbours."""
    drawing = np.zeros((*shape, 3), np.uint8)
    drawing[:] = [200, 40, 10]
    drawing[: shape[0] // 2] = [20, 120, 180]
    write(tmp_path / "v.mp4", [drawing] * 3)
    for _, pixels in read(tmp_path / "v.mp4"):
        assert pixels.shape[:2] == tuple(side + side % 2 for side in shape)
        corners = [0, 0, shape[0] - 1, -1], [0, -1, shape[1] - 1, -1]
        np.testing.assert_allclose(pixels[corners], drawing[corners], atol=10)


def test_opencv_reads_the_same_colours(tmp_path):
    write(tmp_path / "v.mp4", [np.full((720, 1280, 3), (200, 40, 10), np.uint8)])
    pixels = cv2.VideoCapture(str(tmp_path / "v.mp4")).read()[1]
    np.testing.assert_allclose(pixels.mean(axis=(0, 1))[::-1], (200, 40, 10), atol=3)


def test_frames_of_another_size_are_left_out(tmp_path, noise):
    video = OverlayVideo(tmp_path / "v.mp4", 120, 160)
    video.write(noise[0], 0.0)
    with pytest.raises(UserError, match=r"v\.mp4: a frame of 80 x 60 px after .* 160 x 120 px"):
        video.write(noise[1, :60, :80], 0.1)
    video.write(noise[2], 0.2)
    video.close()
    assert len(read(tmp_path / "v.mp4")) == 2


def test_sizes_that_the_encoder_does_not_take_are_named(tmp_path):
    with pytest.raises(UserError, match=r"v\.mp4 .* 20001 x 4 px"):
        OverlayVideo(tmp_path / "v.mp4", 4, 20_001)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_leaves_no_video(tmp_path, noise, no_room):
    no_room(1000)
    for n in (1, 40):  # It fails at the end, or on the way.
        with pytest.raises(DiskFullError, match=str(tmp_path)):
            write(tmp_path / "v.mp4", noise[:n])
        assert not list(tmp_path.iterdir())
