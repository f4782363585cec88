"""A headless Chromium that is told what to do through a pipe: no package is needed for that."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run", "--disable-extensions"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"),  # No network at all.
)


def find_chromium() -> str | None:
    """Its path, if the system has one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One page; `complaints` gathers errors and warnings of the page and of its scripts."""

    def __init__(self, chromium: str, profile: Path):
        read_by_it, self._to = os.pipe()
        self._from, written_by_it = os.pipe()

        # Chromium reads commands from 3 and answers on 4.
        connect = f'exec "$@" 3<&{read_by_it} 4>&{written_by_it}'
        self._process = subprocess.Popen(
            ["bash", "-c", connect, "bash", chromium, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(read_by_it, written_by_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_by_it)
        os.close(written_by_it)
        self._received, self._number, self._session = b"", 0, None
        self.complaints: list[str] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Runs a command of the DevTools protocol and waits for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._received:
                part = os.read(self._from, 1 << 20)
                if not part:
                    raise RuntimeError(f"the browser ended during {method}")
                self._received += part
            text, _, self._received = self._received.partition(b"\0")
            answer = json.loads(text)
            self._listen(answer)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _listen(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(json.dumps(params["entry"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.complaints.append(json.dumps(params["args"]))

    def show(self, width: int, height: int, dark: bool = False) -> None:
        """Sets the window's size and whether it is night."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.as_uri())

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 120) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} is still not true; complaints: {self.complaints}")
            time.sleep(0.2)

    def drag(self, selector: str, across_px: int) -> None:
        """Presses the mouse in the middle of an element, moves it to the right, lets go."""
        x, y = self.evaluate(
            f"(() => {{const e = document.querySelector({selector!r}); e.scrollIntoView();"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        mouse = {"y": y, "button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, **mouse)
        for moved in range(0, across_px + 1, 10):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + moved, **mouse)
        mouse["buttons"] = 0
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + across_px, **mouse)

    def screenshot(self, selector: str = "html") -> bytes:
        """PNG of one element, also where it lies outside the window."""
        box = self.evaluate(
            f"(() => {{const b = document.querySelector({selector!r}).getBoundingClientRect();"
            "return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}})()"
        )
        clip = box | {"scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium; its tests skip where the system has none."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on this machine: install the system's package chromium")
    started = Browser(chromium, tmp_path / "profile")
    yield started
    started.close()
