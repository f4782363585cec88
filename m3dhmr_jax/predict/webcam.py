"""Hands of a camera, live in a browser page that only this computer can open."""

import contextlib
import functools
import http.server
import queue
import sys
import threading
import time
from collections.abc import Generator

import cv2

from m3dhmr_jax.predict.frames import Frame, read_frames
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.outputs import draw_hands
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.predict.run import PredictOptions, choose_intrinsics
from m3dhmr_jax.predict.smoothing import HandSmoother
from m3dhmr_jax.predict.tracking import Tracker
from m3dhmr_jax.runtime.local_server import LocalHandler, make_local_server
from m3dhmr_jax.visualize.text import draw_text

BOUNDARY = "frame"
TEXT_PX = 20
CLOSE_S = 2.0  # A camera that delivers nothing for so long is left open.
PAGE = b"""<!doctype html><meta charset="utf-8"><title>m3dhmr</title>
<style>body{margin:0;background:#111;display:grid;place-items:center;height:100vh}
img{max-width:100vw;max-height:100vh}</style><img src="/stream" alt="hands of the camera">
"""


class LatestImage:
    """The newest JPEG, for any number of viewers."""

    def __init__(self):
        self._changed = threading.Condition()
        self._jpeg, self._number, self._is_over = b"", 0, False

    def put(self, jpeg: bytes) -> None:
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    def end(self) -> None:
        """Lets the viewers go: no JPEG follows."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def after(self, number: int) -> tuple[bytes, int] | None:
        """Waits for a newer JPEG than this one; None: there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._is_over)
            return (self._jpeg, self._number) if self._number > number else None


def newest_frames(source: Input) -> Generator[Frame, None, None]:
    """The frames of a camera; those that arrive during the work on one are dropped.

    Closing the iterator closes the camera.

    Raises:
        UserError: as `read_frames`.
    """
    waiting: queue.Queue[Frame | Exception | None] = queue.Queue(maxsize=1)
    is_closed = threading.Event()

    def drop() -> None:
        with contextlib.suppress(queue.Empty):
            waiting.get_nowait()

    def put(item: Frame | Exception | None) -> None:
        if source.path is None:  # Files are read completely.
            drop()
        if not is_closed.is_set():
            waiting.put(item)

    def read() -> None:
        try:
            for frame in read_frames(source, functools.partial(print, file=sys.stderr)):
                put(frame)
                if is_closed.is_set():
                    return
            put(None)
        except Exception as error:
            put(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        is_closed.set()
        drop()  # The reader may wait for room.
        reader.join(CLOSE_S)


def make_server(latest: LatestImage, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the page, which answers this computer alone.

    Raises:
        UserError: if the port is taken or not allowed.
    """

    class Handler(LocalHandler):
        def answer(self) -> None:
            if self.path == "/":
                self.send_start("text/html; charset=utf-8")
                self.wfile.write(PAGE)
            elif self.path == "/stream":
                self.send_start(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
                self._stream()
            else:
                self.send_error(404)

        def _stream(self) -> None:
            number = 0
            while (newest := latest.after(number)) is not None:
                jpeg, number = newest
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                try:
                    self.wfile.write(f"{head}\r\n\r\n".encode() + jpeg + b"\r\n")
                except OSError:  # The page was closed.
                    return

    return make_local_server(Handler, port)


def show_camera(
    predictor: HandMeshPredictor, source: Input, options: PredictOptions, port: int
) -> None:
    """Serves the camera's image with its hands, mirrored as in a mirror, until Ctrl-C.

    A video file in place of the camera is shown frame by frame, until its end.

    Raises:
        UserError: if the camera does not open or stops, or the port is taken.
    """
    latest = LatestImage()
    with (
        make_server(latest, port) as server,
        contextlib.closing(newest_frames(source)) as frames,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"open http://localhost:{server.server_port} in a browser; Ctrl-C ends")
        tracker = Tracker(predictor, None, options.handedness)
        smoother = HandSmoother(predictor.hand.joint_regressor) if options.smooth else None
        last_s = time.monotonic()
        try:
            for frame in frames:
                k, _ = choose_intrinsics(frame.image, None, options)
                hands = tracker(frame.image, frame.index, frame.time_s, k)
                hands = hands if smoother is None else smoother(hands, frame.time_s)
                now_s = time.monotonic()
                latest.put(draw_frame(frame, hands, 1 / max(now_s - last_s, 1e-3)))
                last_s = now_s
        except KeyboardInterrupt:
            pass
        finally:
            latest.end()
            server.shutdown()


def draw_frame(frame: Frame, hands: PredictedHands, rate_hz: float) -> bytes:
    """The mirrored drawing of a frame as a JPEG."""
    drawing = draw_hands(frame.image, hands)[:, ::-1].copy()
    depths = ", ".join(
        f"{side} {100 * root_m[2]:.0f} cm{'?' if unsure else ''}"
        for side, root_m, unsure in zip(
            hands.handedness, hands.root_m, hands.is_unsure, strict=True
        )
    )
    text = f"{rate_hz:.0f} frames/s  {depths or 'no hand'}"
    draw_text(drawing, text, 10.0, 10 + TEXT_PX, TEXT_PX, (255, 255, 255))
    return cv2.imencode(".jpg", drawing[..., ::-1])[1].tobytes()
