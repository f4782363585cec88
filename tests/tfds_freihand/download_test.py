import functools
import hashlib
import http.server
import re
import threading
import zipfile

import pytest
import requests
import tensorflow_datasets as tfds

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from tfds_freihand import download
from tfds_freihand.freihand_dataset_builder import Builder
from tfds_freihand.prepare import prepare


def pack(folder, archive, part, top=""):
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob(f"{part}*")) + sorted((folder / part).rglob("*.jpg")):
            if path.is_file():
                opened.write(path, f"{top}{path.relative_to(folder)}")
    return archive


@pytest.fixture
def archives(freihand_folder, tmp_path):
    """Small copies of the two official archives; the second has a folder around its layout."""
    folder = tmp_path / "server"
    folder.mkdir()
    return [
        pack(freihand_folder, folder / "FreiHAND_pub_v2.zip", "training"),
        pack(freihand_folder, folder / "FreiHAND_pub_v2_eval.zip", "evaluation", "eval_v2/"),
    ]


@pytest.fixture
def server(archives, monkeypatch):
    """Serves the archives instead of the official addresses; the list of requests."""
    requested = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            requested.append(self.path)

    handler = functools.partial(Handler, directory=archives[0].parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        urls = tuple(
            f"http://127.0.0.1:{running.server_port}/{archive.name}" for archive in archives
        )
        monkeypatch.setattr(download, "URLS", urls)
        yield requested
        running.shutdown()


def record_checksums(monkeypatch, archives, altered=b""):
    lines = [
        "\t".join(
            [url, str(path.stat().st_size), hashlib.sha256(path.read_bytes() + altered).hexdigest()]
        )
        for url, path in zip(download.URLS, archives, strict=True)
    ]
    known = tfds.download.checksums._parse_url_infos(lines)
    monkeypatch.setattr(Builder, "url_infos", known)


def test_unpack_gives_the_official_layout(archives, freihand_folder, tmp_path):
    download.unpack(archives, tmp_path / "unpacked")
    assert freihand.fingerprint(tmp_path / "unpacked") == freihand.fingerprint(freihand_folder)


@pytest.mark.usefixtures("archives")
def test_prepare_downloads_nothing_without_checksums(server, tmp_path):
    with pytest.raises(UserError, match=r"FreiHAND_pub_v2\.zip"):
        prepare(None, tmp_path / "tfds")
    assert not server


def test_prepare_downloads_archives_once(server, archives, tmp_path, monkeypatch):
    record_checksums(monkeypatch, archives)
    dataset_dir = prepare(None, tmp_path / "tfds")
    assert tfds.builder_from_directory(dataset_dir).info.splits["train"].num_examples == 10
    assert len(server) == 2
    assert prepare(None, tmp_path / "tfds") == dataset_dir
    assert len(server) == 2


@pytest.mark.usefixtures("server")
def test_prepare_rejects_another_checksum(archives, tmp_path, monkeypatch):
    record_checksums(monkeypatch, archives, altered=b"0")
    with pytest.raises(UserError, match=r"FreiHAND_pub_v2\.zip"):
        prepare(None, tmp_path / "tfds")
    assert not (tmp_path / "tfds" / "downloads" / "freihand_unpacked").exists()


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "training/../../evil.txt", "a\\..\\b"]
)
def test_unpack_rejects_members_outside_the_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("training_xyz.json", "[]")
        opened.writestr(name, "evil")
    with pytest.raises(UserError, match=re.escape(repr(name))):
        download.unpack([tmp_path / "a.zip"], tmp_path / "deep" / "unpacked")
    assert {path.name for path in tmp_path.rglob("*")} == {"a.zip", "deep"}


def test_unpack_rejects_links(tmp_path):
    link = zipfile.ZipInfo("training/rgb")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc")
    with pytest.raises(UserError, match="training/rgb"):
        download.unpack([tmp_path / "a.zip"], tmp_path / "unpacked")


def test_unpack_names_corrupted_archive_and_leaves_nothing(archives, tmp_path):
    content = bytearray(archives[1].read_bytes())
    content[2000] ^= 255
    archives[1].write_bytes(content)
    with pytest.raises(UserError, match=r"FreiHAND_pub_v2_eval\.zip"):
        download.unpack(archives, tmp_path / "unpacked")
    archives[1].write_bytes(content[:-500])
    with pytest.raises(UserError, match=r"FreiHAND_pub_v2_eval\.zip"):
        download.unpack(archives, tmp_path / "unpacked")
    assert not list(tmp_path.glob("*unpacked*"))


def test_unpack_rejects_another_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"a\.zip"):
        download.unpack([tmp_path / "a.zip"], tmp_path / "unpacked")


def test_fetch_names_unreachable_server(tmp_path):
    class Unreachable:
        download_dir = tmp_path

        def download(self, url):
            raise requests.ConnectionError(f"cannot connect to {url}")

    with pytest.raises(UserError, match=re.escape(download.URLS[0])):
        download.fetch(Unreachable(), dict.fromkeys(download.URLS))
    assert not list(tmp_path.iterdir())
