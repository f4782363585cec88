import http.client
import threading

import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.export import npm_files, serve
from tests.conftest import exit_code


def test_export_writes_a_page_without_a_checkpoint(
    npm_is_cached, detector_weights, tmp_path, capsys
):
    assert exit_code(cli.main, ["export", "--out", f"{tmp_path}/page/"]) == 0
    assert "a browser fetches" in capsys.readouterr().out
    assert (tmp_path / "page" / "index.html").is_file()
    assert exit_code(cli.main, ["export", "--out", f"{tmp_path}/hand.onnx"]) == 2
    assert "needs --checkpoint" in capsys.readouterr().err


def test_demo_serves_the_page_and_draws_the_sheet_if_asked(
    npm_is_cached, detector_weights, tmp_path, monkeypatch, capsys
):
    """A second call replaces the page of the first."""
    files = npm_files.npm_files(npm_files.ONNXRUNTIME_WEB)
    monkeypatch.setattr(npm_files, "cache_folder", lambda: tmp_path)
    for name, content in files.items():
        path = npm_files._cached_folder(npm_files.ONNXRUNTIME_WEB) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = []

    def fetch_and_end(folder, port):
        with serve.make_page_server(folder, port) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
            connection.request("GET", "/")
            found.append(connection.getresponse().read())
            server.shutdown()

    monkeypatch.setattr(serve, "serve_page", fetch_and_end)
    for _ in range(2):
        assert exit_code(cli.main, ["demo", "--port", "0"]) == 0
    assert found == [(tmp_path / "page" / "index.html").read_bytes()] * 2
    sheets = []
    monkeypatch.setattr("m3dhmr_jax.predict.demo.show_demo", lambda out: sheets.append(str(out)))
    assert exit_code(cli.main, ["demo", "--sheet"]) == 0
    assert exit_code(cli.main, ["demo", "--sheet", "mine"]) == 0
    assert sheets == ["runs/demo", "mine"]


@pytest.mark.parametrize("path", ["missing.tgz", "missing"])
def test_a_wrong_npm_path_is_named(detector_weights, tmp_path, path, capsys):
    out, npm = f"{tmp_path}/page/", f"{tmp_path}/{path}"
    assert exit_code(cli.main, ["export", "--out", out, "--npm", npm]) == 2
    assert path in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
