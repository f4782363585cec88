import re

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.page_folder import is_fetched, write_page

MAX_FETCHED_MB = 13


def test_a_browser_fetches_at_most_13_mb(written_page):
    _, fetched_bytes = written_page
    assert 5e6 < fetched_bytes < MAX_FETCHED_MB * 1e6
    builds = [name for name in ("wasm", "jspi.wasm") if is_fetched(f"ort-threaded.{name}")]
    assert builds == ["wasm"]


def test_every_file_that_is_named_is_written(written_page):
    folder, _ = written_page
    names = {path.name for path in folder.iterdir()}
    html = (folder / "index.html").read_text()
    named = set(re.findall(r'(?:href|src)="([\w.-]+)"', html))
    for path in folder.glob("*.js"):
        named |= set(re.findall(r'["`]\./([\w.-]+)["`]', path.read_text()))
        named |= set(re.findall(r'"([\w-]+\.(?:onnx|json|bin))"', path.read_text()))
    assert {"main.js", "style.css", "NOTICE.txt", "palms.onnx", "page.json"} <= named
    assert named <= names


def test_the_page_may_load_from_its_own_host_only(written_page):
    html = (written_page[0] / "index.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src 'none'" in policy
    assert "http" not in policy.replace("http-equiv", "")
    assert "unsafe-inline" not in policy
    assert " 'unsafe-eval'" not in policy


def test_licenses_are_written(written_page):
    folder, _ = written_page
    assert "Apache License" in (folder / "LICENSE_apache-2.0.txt").read_text()
    assert "MIT License" in (folder / "LICENSE_onnxruntime-web.txt").read_text()
    notice = (folder / "NOTICE.txt").read_text()
    assert "MediaPipe Authors" in notice
    assert "onnxruntime-web@" in notice


def test_a_page_is_replaced_and_other_content_kept(npm_is_cached, detector_weights, tmp_path):
    write_page(tmp_path / "page", detector_weights, command="export")
    (tmp_path / "page" / "main.js").write_text("old")
    write_page(tmp_path / "page", detector_weights, command="export")
    assert (tmp_path / "page" / "main.js").read_text() != "old"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(UserError, match="nothing of yours is replaced"):
        write_page(tmp_path / "mine", detector_weights, command="export")
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"
