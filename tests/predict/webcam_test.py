import http.client
import signal
import socket
import threading
import time

import cv2
import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import webcam
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.run import PredictOptions
from m3dhmr_jax.predict.webcam import LatestImage, make_server, newest_frames, show_camera
from tests.conftest import exit_code
from tests.predict.fake_predictor import FakePredictor, Seen

N_FRAMES = 12
WAIT_S = 30.0


@pytest.fixture
def video(tmp_path):
    """Frames of 320 x 240 px that get brighter; their left halves are black."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (320, 240))
    for i in range(N_FRAMES):
        frame = np.zeros((240, 320, 3), np.uint8)
        frame[:, 160:] = 20 * i
        writer.write(frame)
    writer.release()
    return Input("clip", "clip.avi", path)


@pytest.fixture
def server():
    latest = LatestImage()
    with make_server(latest, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, latest
        server.shutdown()


def get(port, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest("GET", path, skip_host="Host" in names)
    for name, value in names.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Host": "example.org:8080"}, 403),
        ({"Host": "localhost.example.org"}, 403),
        ({"Host": ""}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
    ],
)
def test_server_answers_pages_of_this_computer_only(server, headers, status):
    port, latest = server
    latest.put(b"secret")
    latest.end()
    for path in ("/", "/stream"):
        response = get(port, path, **headers)
        assert response.status == status
        assert (b"secret" in response.read()) == (status == 200 and path == "/stream")
    assert get(port, "/other").status == 404


def test_server_listens_on_this_computer_only(server):
    port, _ = server
    addresses = {each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)}
    for address in (each for each in addresses if ":" not in each and each[:4] != "127."):
        with socket.socket() as other:
            assert other.connect_ex((address, port))


def test_a_port_that_is_taken_or_not_allowed_is_named(server):
    for port in (server[0], 70000):
        with pytest.raises(UserError, match=f"--port {port}"):
            make_server(LatestImage(), port)


def jpegs_of(response):
    """The parts of a stream until its end."""
    parts = response.read().split(b"--" + webcam.BOUNDARY.encode() + b"\r\n")[1:]
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]


@pytest.fixture
def show(monkeypatch):
    """Shows a source from a thread, and waits for a viewer before the first frame."""
    ready, connected = threading.Event(), threading.Event()
    made = []

    def make(latest, port):
        made.append(make_server(latest, port))
        ready.set()
        return made[0]

    def frames(source):
        assert connected.wait(WAIT_S)
        yield from newest_frames(source)

    monkeypatch.setattr(webcam, "make_server", make)
    monkeypatch.setattr(webcam, "newest_frames", frames)
    predictor = FakePredictor()
    predictor.hands = [Seen((100.0, 120.0))]

    def run(source):
        arguments = predictor, source, PredictOptions(), 0
        thread = threading.Thread(target=show_camera, args=arguments, daemon=True)
        thread.start()
        assert ready.wait(WAIT_S)
        response = get(made[0].server_port, "/stream")
        connected.set()
        jpegs = jpegs_of(response)
        thread.join(WAIT_S)
        assert not thread.is_alive()
        return jpegs

    return run


def test_a_video_is_streamed_as_jpegs_until_it_ends(show, video, capsys):
    jpegs = show(video)
    assert 1 <= len(jpegs) <= N_FRAMES  # A viewer may miss some, but not the last one.
    images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in jpegs]
    assert {image.shape for image in images} == {(240, 320, 3)}
    levels = [image[200:, 20:100].mean() for image in images]
    assert levels == sorted(levels)
    assert abs(levels[-1] - 20 * (N_FRAMES - 1)) < 10  # On the left: it is mirrored.
    assert (images[-1][:60, 10:300] > 240).any()  # The text is not.
    assert "http://localhost:" in capsys.readouterr().out


def test_all_frames_of_a_file_are_shown_and_those_of_a_camera_dropped(video, monkeypatch):
    opened = cv2.VideoCapture
    assert [frame.index for frame in newest_frames(video)] == list(range(N_FRAMES))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened({0: str(video.path)}[number]))
    frames = newest_frames(Input("camera0", "camera 0", None, 0))
    next(frames)
    time.sleep(1.0)  # Long enough to read all of it.
    with pytest.raises(UserError, match="camera 0 stopped"):
        next(frames)


def test_closing_the_frames_closes_their_source(video, monkeypatch):
    opened, captures = cv2.VideoCapture, []
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda *given: captures.append(opened(*given)) or captures[0]
    )
    frames = newest_frames(video)
    next(frames)
    assert captures[0].isOpened()
    frames.close()
    assert not captures[0].isOpened()


def test_ctrl_c_ends_without_an_error(video, monkeypatch):
    """It is pressed during the work on the third frame."""
    times, latest = [], LatestImage()

    class Interrupted(FakePredictor):
        def predict(self, *arguments):
            times.append(time.monotonic())
            if len(times) == 3:
                signal.raise_signal(signal.SIGINT)
            return super().predict(*arguments)

    monkeypatch.setattr(webcam, "LatestImage", lambda: latest)
    show_camera(Interrupted(), video, PredictOptions(), 0)
    assert len(times) == 3
    jpeg, number = latest.after(0)
    assert number == 2
    assert jpeg
    assert latest.after(number) is None  # Viewers are let go.


def test_a_window_shows_frames_until_a_key_is_pressed(video, monkeypatch, capsys):
    """OpenCV's headless build has no windows, so its functions are replaced."""
    shown, captures, opened = [], [], cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda *given: captures.append(opened(*given)) or captures[0]
    )
    monkeypatch.setenv("DISPLAY", ":93")
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    closed = []
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: closed.append(True))
    predictor = FakePredictor()
    predictor.hands = [Seen((100.0, 120.0))]
    show_camera(predictor, video, PredictOptions())
    assert len(shown) == 3
    assert abs(shown[2][200:, 20:100].mean() - 40) < 10  # On the left: it is mirrored.
    blue, _, red = shown[0][100:140, 180:240].reshape(-1, 3).astype(float).mean(axis=0)
    assert blue > red  # The hand is drawn bluish, in OpenCV's order.
    assert closed
    assert not captures[0].isOpened()
    assert "q ends" in capsys.readouterr().out


@pytest.mark.parametrize("screen", [":93", None])
def test_the_headless_build_has_no_windows(monkeypatch, screen):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if screen:
        monkeypatch.setenv("DISPLAY", screen)
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    assert not webcam.has_windows()


def test_a_camera_that_does_not_open_is_named(monkeypatch, capsys):
    monkeypatch.setattr("m3dhmr_jax.predict.predictor.load_predictor", lambda *_: FakePredictor())
    arguments = ["webcam", "--camera=93", "--port=0", "--no-smooth"]
    assert exit_code(cli.main, arguments) == 2
    assert "camera 93" in capsys.readouterr().err
    assert exit_code(cli.main, ["webcam", "--port=70000", "--no-smooth"]) == 2
    assert "--port 70000" in capsys.readouterr().err
