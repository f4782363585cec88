"""Frames per second of the page in Chromium, whose fake camera shows one rendered hand.

    python -m benchmarks.page
    python -m benchmarks.page --checkpoint runs/quickstart     # Its network in place of the fit.

Writes the page to a temporary folder, serves it, starts the camera, and prints as one line of JSON
what the page itself shows after SECONDS: frames per second, and milliseconds per stage (averages
over about the last second; `find` only in frames in which hands are searched). Needs Chromium,
Playwright and the hand detector.
"""

import argparse
import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import record
from m3dhmr_jax.export.page_folder import write_page
from m3dhmr_jax.export.serve import make_page_server
from m3dhmr_jax.predict.detector_weights import load_detector_weights
from m3dhmr_jax.synthetic import write_photos

SECONDS = 20
# At its end the hand is back: the camera repeats the film.
SIZE_PX, FRAMES = (640, 480), 240
WAIT_MS = 120_000.0
STATS = "[...document.querySelectorAll('[data-stat]')].map((e) => [e.dataset.stat, e.textContent])"


def write_film(path: Path) -> None:
    """One hand of a rendered photo, swaying: JPEGs in a row, as the fake camera reads them."""
    with tempfile.TemporaryDirectory() as folder:
        (row,) = write_photos(Path(folder), 1, seed=2026)
        photo = np.asarray(cv2.imread(str(Path(folder) / row["file"])))
    x, y, width, height = row["hands"][1]["bbox_px"]
    hand_px = np.array([x + width / 2, y + height / 2])
    with path.open("wb") as file:
        for phase in np.linspace(0, 2 * np.pi, FRAMES, endpoint=False):
            matrix = cv2.getRotationMatrix2D(hand_px.tolist(), 10 * np.sin(phase), 1.0)
            matrix[:, 2] += np.array(SIZE_PX) / 2 - hand_px + [40 * np.sin(phase), 0]
            frame = cv2.warpAffine(photo, matrix, SIZE_PX, borderMode=cv2.BORDER_REPLICATE)
            file.write(cv2.imencode(".jpg", frame)[1].tobytes())


def measure(address: str, film: Path, method: str) -> dict[str, float]:
    """What the page shows of its speed."""
    from playwright.sync_api import sync_playwright

    flags = [
        *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        f"--use-file-for-fake-video-capture={film}",
    ]
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(
            executable_path=path, args=flags, chromium_sandbox=False
        )
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.wait_for_selector('#status:text-is("ready")')
        if method == "network":
            page.check('[name="method"][value="network"]')
        page.click("#camera")
        page.wait_for_selector('#hands:text-matches("hand, ")')
        page.wait_for_timeout(1000 * SECONDS)
        stats: Any = page.evaluate(STATS)
        browser.close()
    return {name: float(text.split()[0]) for name, text in stats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    checkpoint = parser.parse_args().checkpoint
    method = "fit" if checkpoint is None else "network"
    with tempfile.TemporaryDirectory() as folder:
        page, film = Path(folder) / "page", Path(folder) / "camera.mjpeg"
        size = write_page(page, load_detector_weights(), command="export", checkpoint=checkpoint)
        write_film(film)
        with make_page_server(page, 0) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            found = measure(f"http://127.0.0.1:{server.server_port}/", film, method)
            server.shutdown()
    facts = {"method": method, "fetched_mb": round(size / 1e6, 2)}
    print(json.dumps(record("page", {}, **facts, **found)))


if __name__ == "__main__":
    main()
