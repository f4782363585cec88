"""Videos of drawings, each shown at its own time.

Axes: h w image.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.runtime.results_folder import removed_on_error

TICK_S = Fraction(1, 90_000)
# Near the source's quality, at several times the speed of the encoder's own choice.
ENCODER_OPTIONS = {"preset": "veryfast", "crf": "20"}


class OverlayVideo:
    """H.264 in MP4 with colours at half resolution: the kind that every browser and player shows.

    It needs even sides, so the last row or column of odd ones is repeated.

    Raises:
        UserError: if the encoder does not take this size.
        DiskFullError, OSError: here or in `write` or `close`, if it cannot be written; it is
            removed then.
    """

    def __init__(self, path: Path, height: int, width: int):
        self._path, self._size = path, (height, width)
        self._last_tick = -1
        with removed_on_error(path):
            self._container = av.open(str(path), "w", format="mp4")
            self._stream = self._container.add_stream("libx264", options=ENCODER_OPTIONS)
            codec = self._stream.codec_context
            codec.height, codec.width = height + height % 2, width + width % 2
            codec.pix_fmt = "yuv420p"
            codec.time_base = self._stream.time_base = TICK_S
            codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
            codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            try:
                codec.open()
            except FFmpegError as error:
                raise UserError(
                    f"{path} was not written: H.264 does not take {width} x {height} px"
                ) from error

    def write(self, drawing: Image, time_s: float) -> None:
        """Appends a frame.

        Raises:
            UserError: if it is of another size than the first one.
            DiskFullError, OSError: if it cannot be written.
        """
        height, width = self._size
        if drawing.shape[:2] != self._size:
            raise UserError(
                f"{self._path}: a frame of {drawing.shape[1]} x {drawing.shape[0]} px after frames "
                f"of {width} x {height} px was left out of the video"
            )
        even = np.pad(drawing, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        self._last_tick = max(round(time_s / TICK_S), self._last_tick + 1)
        frame.pts, frame.time_base = self._last_tick, TICK_S
        with removed_on_error(self._path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        with removed_on_error(self._path):
            self._container.mux(self._stream.encode(None))
            self._container.close()
