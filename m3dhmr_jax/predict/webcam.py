"""Hands of a camera, live: in a window, or in a browser page that only this computer can open."""

import contextlib
import functools
import http.server
import os
import queue
import sys
import threading
import time
from collections.abc import Generator, Iterable

import cv2
import numpy as np
from jaxtyping import UInt8

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

TITLE, DEFAULT_PORT, BOUNDARY = "m3dhmr", 8080, "frame"
END_KEYS = {27, ord("q")}  # 27: Esc.
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
    predictor: HandMeshPredictor, source: Input, options: PredictOptions, port: int | None = None
) -> None:
    """Shows the camera's image with its hands, mirrored as in a mirror, until Ctrl-C.

    A video file in place of the camera is shown frame by frame, until its end.

    Args:
        port: of a page; None: a window, or where OpenCV has none a page on DEFAULT_PORT.

    Raises:
        UserError: if the camera does not open or stops, or the port is taken.
    """
    with contextlib.closing(draw_frames(predictor, source, options)) as drawings:
        if port is None and has_windows():
            show_in_window(drawings)
        else:
            show_on_page(drawings, DEFAULT_PORT if port is None else port)


def has_windows() -> bool:
    """Whether OpenCV can show windows; its headless build, which this package requires, cannot."""
    has_screen = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if sys.platform == "linux" and not has_screen:
        return False  # There, OpenCV with Qt would end the process.
    try:
        cv2.namedWindow(TITLE)
    except cv2.error:
        return False
    return True


def show_in_window(drawings: Iterable[UInt8[np.ndarray, "h w 3"]]) -> None:
    """Until Esc, q or Ctrl-C is pressed or the window is closed."""
    print("Esc or q ends")
    try:
        for drawing in drawings:
            cv2.imshow(TITLE, np.ascontiguousarray(drawing[..., ::-1]))
            key = cv2.waitKey(1) & 0xFF
            if key in END_KEYS or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
                break
    except KeyboardInterrupt:
        pass
    finally:
        cv2.destroyAllWindows()


def show_on_page(drawings: Iterable[UInt8[np.ndarray, "h w 3"]], port: int) -> None:
    """Until Ctrl-C is pressed.

    Raises:
        UserError: if the port is taken.
    """
    latest = LatestImage()
    with make_server(latest, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"open http://localhost:{server.server_port} in a browser; Ctrl-C ends")
        try:
            for drawing in drawings:
                latest.put(cv2.imencode(".jpg", drawing[..., ::-1])[1].tobytes())
        except KeyboardInterrupt:
            pass
        finally:
            latest.end()
            server.shutdown()


def draw_frames(
    predictor: HandMeshPredictor, source: Input, options: PredictOptions
) -> Generator[UInt8[np.ndarray, "h w 3"], None, None]:
    """The mirrored drawings of the newest frames."""
    tracker = Tracker(predictor, None, options.handedness)
    smoother = HandSmoother(predictor.hand.joint_regressor) if options.smooth else None
    last_s = time.monotonic()
    with contextlib.closing(newest_frames(source)) as frames:
        for frame in frames:
            k, _ = choose_intrinsics(frame.image, None, options)
            hands = tracker(frame.image, frame.index, frame.time_s, k)
            hands = hands if smoother is None else smoother(hands, frame.time_s)
            now_s = time.monotonic()
            yield draw_frame(frame, hands, 1 / max(now_s - last_s, 1e-3))
            last_s = now_s


def draw_frame(frame: Frame, hands: PredictedHands, rate_hz: float) -> UInt8[np.ndarray, "h w 3"]:
    """The mirrored drawing of a frame, with the rate and the distances of the hands."""
    drawing = draw_hands(frame.image, hands)[:, ::-1].copy()
    depths = ", ".join(
        f"{side} {100 * root_m[2]:.0f} cm{'?' if unsure else ''}"
        for side, root_m, unsure in zip(
            hands.handedness, hands.root_m, hands.is_unsure, strict=True
        )
    )
    text = f"{rate_hz:.0f} frames/s  {depths or 'no hand'}"
    draw_text(drawing, text, 10.0, 10 + TEXT_PX, TEXT_PX, (255, 255, 255))
    return drawing
