import threading

import cv2
import numpy as np
import pytest

from m3dhmr_jax.export.serve import make_page_server
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.synthetic import write_photos

pytest.importorskip("onnx")
WAIT_MS = 300_000.0  # Machines may be busy.


@pytest.fixture(scope="session")
def npm_is_cached():
    """Tests that need the npm files skip without them: no test fetches anything."""
    from m3dhmr_jax.export.npm_files import ONNXRUNTIME_WEB, is_cached

    if not is_cached(ONNXRUNTIME_WEB):
        pytest.skip(f"no files of {ONNXRUNTIME_WEB.requirement}: make page-files")


@pytest.fixture(scope="session")
def written_page(npm_is_cached, detector_weights, tmp_path_factory):
    """The folder of the page, and its size as a browser fetches it."""
    from m3dhmr_jax.export.page_folder import write_page

    folder = tmp_path_factory.mktemp("written") / "page"
    return folder, write_page(folder, detector_weights, command="export")


@pytest.fixture(scope="session")
def serve():
    """Serves a folder; returns its address."""
    servers = []

    def start(folder):
        servers.append(make_page_server(folder, 0))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def address(serve, written_page):
    """Where the page is served."""
    return serve(written_page[0])


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A rendered photo of a right and a left hand, lossless: its path and its RGB pixels."""
    folder = tmp_path_factory.mktemp("photos")
    (row,) = write_photos(folder, 1, seed=2026)
    pixels = read_image(folder / row["file"]).image
    path = folder / "hands.png"
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path, pixels


@pytest.fixture(scope="session")
def camera_film(photo, tmp_path_factory):
    """What the fake camera shows, again and again: the photo, which sways."""
    return write_film(tmp_path_factory.mktemp("film") / "camera.mjpeg", photo[1])


def write_film(path, pixels, width=640, height=480, frames=60):
    """Writes JPEGs of an image that sways, one after the other."""
    centre = np.array(pixels.shape[1::-1]) / 2
    with path.open("wb") as file:
        for phase in np.linspace(0, 2 * np.pi, frames, endpoint=False):
            scale = width / pixels.shape[1]
            matrix = cv2.getRotationMatrix2D(centre.tolist(), 8 * np.sin(phase), scale)
            sway = np.array([30 * np.sin(phase), 15 * np.cos(phase)])
            matrix[:, 2] += np.array([width, height]) / 2 - centre + sway
            frame = cv2.warpAffine(
                pixels[..., ::-1], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
            )
            file.write(cv2.imencode(".jpg", frame)[1].tobytes())
    return path


class OpenPage:
    """The page in a browser tab, with what was logged in it."""

    def __init__(self, context, address, script=None):
        self.tab = context.new_page()
        self.tab.set_default_timeout(WAIT_MS)
        if script is not None:
            self.tab.add_init_script(script)
        self.errors = []
        self.requests = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", self._log)
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(address)

    def _log(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def wait_until_ready(self):
        self.tab.wait_for_selector('#status:text-is("ready")')
        return self

    def wait_for_error(self):
        return self.tab.wait_for_selector("#status.is-error").inner_text()

    def open(self, path):
        """Opens a photo and waits until its hands are drawn."""
        self.tab.set_input_files("#file", path)
        self.tab.wait_for_selector("#hands:not(:empty)")
        self.tab.wait_for_selector("#status:empty", state="attached")

    def save(self, kind, path):
        with self.tab.expect_download() as download:
            self.tab.click(f"[data-save={kind}]")
        download.value.save_as(path)
        return path


@pytest.fixture
def open_page(chromium, address):
    """Opens the page in a new tab; further arguments are those of a browser context."""
    contexts = []

    def start(script=None, browser=chromium, at=address, **options):
        contexts.append(browser.new_context(**options))
        return OpenPage(contexts[-1], at, script)

    yield start
    for context in contexts:
        context.close()
