import base64
import hashlib
import io
import tarfile

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export import npm_files as module
from m3dhmr_jax.export.npm_files import NpmPackage, is_cached, npm_files

FILES = {"a.mjs": b"first", "b.wasm": b"second"}


def tarball(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


CONTENT = tarball(
    {f"package/dist/{name}": content for name, content in FILES.items()}
    | {"package/../../outside": b"never written", "package/dist/other.js": b"not used"}
)
PACKAGE = NpmPackage(
    "thing",
    "1.2.3",
    base64.b64encode(hashlib.sha512(CONTENT).digest()).decode(),
    1 << 20,
    {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setattr(module, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def registry(serve, tmp_path, monkeypatch):
    """A registry of one package: the server knows names, not folders."""
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "thing-1.2.3.tgz").write_bytes(CONTENT)
    address = serve(folder)
    opened = []

    def urlopen(url, **options):
        opened.append(url)
        return own(url.replace("thing/-/", ""), **options)

    own = module.urllib.request.urlopen
    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("npm_config_registry", address)
    return folder, opened


def test_a_package_is_fetched_once(registry, cache):
    _, opened = registry
    assert not is_cached(PACKAGE)
    assert npm_files(PACKAGE) == FILES
    assert is_cached(PACKAGE)
    assert npm_files(PACKAGE) == FILES
    assert [url.rpartition("/thing/-/")[2] for url in opened] == ["thing-1.2.3.tgz"]
    assert {path.name for path in cache.rglob("*") if path.is_file()} == set(FILES)


def test_another_tarball_is_rejected_and_nothing_kept(registry, cache):
    folder, _ = registry
    (folder / "thing-1.2.3.tgz").write_bytes(tarball({"package/dist/a.mjs": b"evil"}))
    with pytest.raises(UserError, match=r"not the tarball of thing@1\.2\.3: its SHA-512"):
        npm_files(PACKAGE)
    assert not cache.exists()


def test_a_corrupted_cache_is_named(registry, cache):
    npm_files(PACKAGE)
    broken = next(cache.rglob("a.mjs"))
    broken.write_bytes(b"other")
    with pytest.raises(UserError, match=r"a\.mjs has SHA-256 .* remove it"):
        npm_files(PACKAGE)


def test_without_a_network_it_is_told_what_to_download(monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"thing-1\.2\.3\.tgz by hand and give it with --npm"):
        npm_files(PACKAGE)


def test_files_are_taken_from_node_modules_or_a_tarball(tmp_path):
    dist = tmp_path / "node_modules" / "thing" / "dist"
    dist.mkdir(parents=True)
    for name, content in FILES.items():
        (dist / name).write_bytes(content)
    assert npm_files(PACKAGE, tmp_path / "node_modules") == FILES
    (dist / "a.mjs").write_bytes(b"of another version")
    with pytest.raises(UserError, match=r"a\.mjs has SHA-256 .* not of thing@1\.2\.3"):
        npm_files(PACKAGE, tmp_path / "node_modules")
    with pytest.raises(UserError, match=r"npm install thing@1\.2\.3"):
        npm_files(PACKAGE, tmp_path)
    (tmp_path / "thing.tgz").write_bytes(CONTENT)
    assert npm_files(PACKAGE, tmp_path / "thing.tgz") == FILES
    with pytest.raises(UserError, match=r"--npm .*none"):
        npm_files(PACKAGE, tmp_path / "none")
