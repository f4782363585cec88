"""An HTTP server whose pages only this computer can open."""

import http.server
from typing import Any

from m3dhmr_jax.errors import UserError

ADDRESS = "127.0.0.1"


class LocalHandler(http.server.BaseHTTPRequestHandler):
    """Answers GET requests from this computer's own pages by `answer`, and logs nothing."""

    def do_GET(self) -> None:
        # Pages of other sites must not see what is served, nor through a name of their own for
        # this address.
        host = self.headers.get("Host", "").partition(":")[0]
        is_foreign = self.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
        if host not in ("localhost", ADDRESS) or is_foreign:
            self.send_error(403)
        else:
            self.answer()

    def answer(self) -> None:
        """Sends the response to an allowed request."""
        raise NotImplementedError

    def send_start(self, kind: str, **headers: str) -> None:
        """Status 200, the content's type, and further headers, `_` standing for `-`."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def make_local_server(handler: type[LocalHandler], port: int) -> http.server.ThreadingHTTPServer:
    """A server on this computer's own address; port 0 takes a free one.

    Raises:
        UserError: if the port is taken or not allowed.
    """
    try:
        server = http.server.ThreadingHTTPServer((ADDRESS, port), handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port}: {error}; choose another one") from error
    server.daemon_threads = True
    return server
