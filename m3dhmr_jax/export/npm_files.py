"""The files of an npm package that the page needs: fetched once, or from the user's node_modules.

Only files whose SHA-256 is known are used; nothing of the package is installed or run here.
"""

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import platformdirs

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.command_line import one_line_errors
from m3dhmr_jax.runtime.files import write_atomic

REGISTRY_VARIABLE, DEFAULT_REGISTRY = "npm_config_registry", "https://registry.npmjs.org"
TIMEOUT_S = 60.0


class NpmPackage(NamedTuple):
    """A version of a package, and the files of its folder `dist` that are used."""

    name: str
    version: str
    # Of the tarball, as the registry publishes it.
    sha512_base64: str
    # Above this size nothing is read.
    max_bytes: int
    sha256: Mapping[str, str]

    @property
    def requirement(self) -> str:
        return f"{self.name}@{self.version}"


# Two builds, of which a browser fetches one: for WebAssembly alone, and for WebGPU too.
ONNXRUNTIME_WEB = NpmPackage(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    40 << 20,
    {
        "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "ort-wasm-simd-threaded.mjs": (
            "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b"
        ),
        "ort-wasm-simd-threaded.wasm": (
            "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
        ),
        "ort.jspi.min.mjs": "bc57179d923fda2d88d4a395359c8df44399dde087bf9ff44fc0e40ab398e4d9",
        "ort-wasm-simd-threaded.jspi.mjs": (
            "270e2c6da9f297239d301d329782b6446641cb1e16a77967690adcfca35f3268"
        ),
        "ort-wasm-simd-threaded.jspi.wasm": (
            "a54c76f86b0f0d9572380cf1c6292a7b3903716ffcbcd6b0e5c7050bf430eb93"
        ),
    },
)


def cache_folder() -> Path:
    """Where what this package fetches or writes for the page is kept."""
    return Path(platformdirs.user_cache_dir("m3dhmr_jax", appauthor=False))


def npm_files(package: NpmPackage, source: Path | None = None) -> dict[str, bytes]:
    """The content of the package's files by name.

    Args:
        source: a folder node_modules, or the package's tarball; None: the cache, filled from the
            registry if it lacks them.

    Raises:
        UserError: if the source has no such files or other versions of them, or nothing could be
            downloaded.
    """
    if source is not None:
        if source.is_dir():
            return _from_folder(package, source / package.name / "dist", source)
        return _from_tarball(package, _read_tarball(package, source), str(source))
    cached = _cached_folder(package)
    if not is_cached(package):
        files = _download(package)
        for name, content in files.items():
            with write_atomic(cached / name) as path:
                path.write_bytes(content)
    return _from_folder(package, cached, cached)


def is_cached(package: NpmPackage) -> bool:
    """Whether `npm_files` needs no network."""
    return all((_cached_folder(package) / name).is_file() for name in package.sha256)


def _cached_folder(package: NpmPackage) -> Path:
    return cache_folder() / "npm" / f"{package.name}-{package.version}"


def _from_folder(package: NpmPackage, folder: Path, source: Path) -> dict[str, bytes]:
    files = {}
    for name in package.sha256:
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise UserError(
                f"{source}: {folder / name} cannot be read ({error.strerror}): give the folder "
                f"node_modules in which npm install {package.requirement} was run"
            ) from error
    return _checked(package, files, str(source))


def _read_tarball(package: NpmPackage, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(package.max_bytes + 1)
    except OSError as error:
        raise UserError(
            f"--npm {path}: {error.strerror}: give a folder node_modules, or the tarball of "
            f"{package.requirement}"
        ) from error


def _download(package: NpmPackage) -> dict[str, bytes]:
    registry = os.environ.get(REGISTRY_VARIABLE) or DEFAULT_REGISTRY
    file = f"{package.name}-{package.version}.tgz"
    url = f"{registry.rstrip('/')}/{package.name}/-/{file}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            content = response.read(package.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: an address that is not one.
        raise UserError(
            f"{url} could not be downloaded ({error}): download {DEFAULT_REGISTRY}/{package.name}"
            f"/-/{file} by hand and give it with --npm, or run npm install {package.requirement} "
            "and give its folder node_modules"
        ) from error
    return _from_tarball(package, content, url)


def _from_tarball(package: NpmPackage, content: bytes, source: str) -> dict[str, bytes]:
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.sha512_base64:
        raise UserError(
            f"{source} is not the tarball of {package.requirement}: its SHA-512 is {found} instead "
            f"of {package.sha512_base64}"
        )
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for name in package.sha256:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            files[name] = member.read()
    return _checked(package, files, source)


def _checked(package: NpmPackage, files: dict[str, bytes], source: str) -> dict[str, bytes]:
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != package.sha256[name]:
            raise UserError(
                f"{source}: {name} has SHA-256 {found} instead of {package.sha256[name]}: it is "
                f"corrupted, or not of {package.requirement}; remove it, or install that version"
            )
    return files


if __name__ == "__main__":  # Fills the cache.
    with one_line_errors():
        npm_files(ONNXRUNTIME_WEB)
