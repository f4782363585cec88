import shutil

import pytest

FLAGS = [
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # The page must not need a network.
]


@pytest.fixture(scope="session")
def chromium():
    """The system's Chromium; tests skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((path for path in map(shutil.which, names) if path), None)
    if path is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=FLAGS, chromium_sandbox=False
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a file with all charts drawn; at the end, scripts must not have reported errors."""
    contexts, errors = [], []

    def open_it(path, width, height, color_scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=color_scheme
        )
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: line.type == "error" and errors.append(line.text))
        page.goto(path.as_uri())
        page.wait_for_selector("body.drawn")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []
