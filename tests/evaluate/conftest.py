import pytest


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
