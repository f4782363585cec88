import functools
import http.server
import importlib.resources
import shutil
import threading

import pytest

from m3dhmr_jax.export.hand_tables import write_hand_tables
from m3dhmr_jax.hand import load_builtin


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def modules(chromium, tmp_path_factory):
    """Runs JavaScript in Chromium, where the page will run: a function of the page's modules.

    `modules(names, body, argument)` imports the modules and returns what `body`, with the
    modules' exports by file name and `argument` in scope, returns.
    """
    folder = tmp_path_factory.mktemp("page")
    source = importlib.resources.files("m3dhmr_jax.export") / "page"
    with importlib.resources.as_file(source) as page_folder:
        shutil.copytree(page_folder, folder, dirs_exist_ok=True)
    write_hand_tables(load_builtin(), folder)
    (folder / "blank.html").write_text("<!doctype html><title>Tests</title>")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/blank.html")

        def run(names, body, argument=None):
            program = f"""async (argument) => {{
                const [{", ".join(names)}] = await Promise.all(
                    {names!r}.map((name) => import(`./${{name}}.js`)));
                {body}
            }}"""
            return page.evaluate(program, argument)

        yield run
        page.close()
        server.shutdown()
