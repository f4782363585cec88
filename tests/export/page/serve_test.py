import gzip
import http.client

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.serve import make_page_server


@pytest.fixture
def get(serve, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    for name in ("index.html", "main.js", "ort.mjs", "ort.wasm", "palms.onnx"):
        (folder / name).write_bytes(b"content of " * 50 + name.encode())
    (tmp_path / "secret.txt").write_text("secret")
    port = int(serve(folder).rstrip("/").rpartition(":")[2])

    def request(path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response, response.read()

    return request


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?x=1", "text/html; charset=utf-8"),
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/ort.mjs", "text/javascript; charset=utf-8"),
        ("/ort.wasm", "application/wasm"),
        ("/palms.onnx", "application/octet-stream"),
    ],
)
def test_files_have_their_type_and_are_compressed(get, path, kind):
    response, plain = get(path)
    assert (response.status, response.headers["Content-Type"]) == (200, kind)
    assert response.headers["Content-Encoding"] is None
    response, content = get(path, **{"Accept-Encoding": "gzip, br"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(content) == plain
    assert plain.startswith(b"content of ")


@pytest.mark.parametrize("path", ["/../secret.txt", "/..%2fsecret.txt", "//secret.txt", "/none"])
def test_only_files_of_the_folder_are_served(get, path):
    response, content = get(path)
    assert response.status == 404
    assert b"secret\n" not in content


def test_pages_of_others_get_nothing(get):
    for headers in ({"Host": "example.org"}, {"Sec-Fetch-Site": "cross-site"}):
        response, content = get("/main.js", **headers)
        assert response.status == 403
        assert b"content of" not in content


def test_a_port_that_is_not_allowed_is_named(tmp_path):
    with pytest.raises(UserError, match="--port 70000"):
        make_page_server(tmp_path, 70000)
