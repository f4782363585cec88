"""Serves the page of a folder to this computer alone."""

import contextlib
import functools
import gzip
import http.server
from pathlib import Path

from m3dhmr_jax.runtime.local_server import LocalHandler, make_local_server

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}
OTHER_KIND = "application/octet-stream"


def make_page_server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the files in a folder, compressed with gzip for browsers that accept it.

    Raises:
        UserError: if the port is taken or not allowed.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}

    @functools.cache
    def compressed(name: str) -> bytes:
        return gzip.compress((folder / name).read_bytes())

    class Handler(LocalHandler):
        def answer(self) -> None:
            name = self.path.partition("?")[0].removeprefix("/") or "index.html"
            if name not in names:
                self.send_error(404)
                return
            kind = KINDS.get(Path(name).suffix, OTHER_KIND)
            headers = {"X_Content_Type_Options": "nosniff"}
            if "gzip" in self.headers.get("Accept-Encoding", ""):
                content = compressed(name)
                headers["Content_Encoding"] = "gzip"
            else:
                content = (folder / name).read_bytes()
            self.send_start(kind, Content_Length=str(len(content)), **headers)
            self.wfile.write(content)

    return make_local_server(Handler, port)


def serve_page(folder: Path, port: int) -> None:
    """Serves a folder until Ctrl-C.

    Raises:
        UserError: if the port is taken or not allowed.
    """
    with make_page_server(folder, port) as server:
        print(f"open http://localhost:{server.server_port} in a browser; Ctrl-C ends", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
