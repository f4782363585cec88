"""Writes the page that finds hands in the browser: a folder of files for any static host."""

import gzip
import importlib.resources
import json
import tempfile
from pathlib import Path
from typing import Any

from m3dhmr_jax.export.hand_tables import write_hand_tables
from m3dhmr_jax.export.npm_files import ONNXRUNTIME_WEB, npm_files
from m3dhmr_jax.export.onnx_detector import landmark_model, palm_model
from m3dhmr_jax.export.onnx_file import export_onnx
from m3dhmr_jax.export.trained import load_trained
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.models.hand_detector_outputs import DetectorWeights
from m3dhmr_jax.runtime.results_folder import ResultsFolder

SOURCES = ("*.html", "*.css", "*.js")
SETTINGS, NETWORK, TABLES = "page.json", "hand.onnx", ("hand.bin", "hand.json")
# A browser fetches one of the runtime's builds.
LARGER_BUILD = ".jspi."
APACHE = "LICENSE_apache-2.0.txt"
LICENSE_NAMES = (APACHE, "LICENSE_onnxruntime-web.txt", "NOTICE.txt")
MIT = """\
MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
NOTICE = """\
Page of m3dhmr_jax, licensed under the Apache License 2.0: see {apache}.

palms.onnx and landmarks.onnx hold the weights of Google's palm detector and hand landmark network
(MediaPipe Hands, full), with unchanged values in another file format.
Copyright The MediaPipe Authors, licensed under the Apache License 2.0: see {apache}.

The files ort*.mjs and ort*.wasm are those of the npm package {runtime}.
Copyright Microsoft Corporation, licensed under the MIT License: see LICENSE_onnxruntime-web.txt.
The notices of the software in it: https://github.com/microsoft/onnxruntime/blob/v{version}/ThirdPartyNotices.txt
"""


def write_page(
    out: Path,
    detector: DetectorWeights,
    *,
    command: str,
    checkpoint: Path | None = None,
    npm: Path | None = None,
) -> int:
    """Writes the page into a folder; files of an earlier call there are replaced.

    Args:
        command: that of m3dhmr which writes; it replaces no files of others.
        checkpoint: a trained network, which the page offers next to the fit.
        npm: where the runtime's files are; see `npm_files`.

    Returns:
        How many bytes a browser fetches, compressed with gzip.

    Raises:
        UserError: if the folder has other content, the runtime cannot be fetched, or the
            checkpoint cannot be used.
        DiskFullError: if the disk is full.
    """
    files = _own_files() | npm_files(ONNXRUNTIME_WEB, npm) | _detector_files(detector)
    settings, networks = _hand_network(checkpoint)
    files |= networks | {SETTINGS: json.dumps(settings).encode()} | _license_files()
    with ResultsFolder(out, command, [*files, *TABLES], replace=True) as folder:
        for name, content in files.items():
            folder.write(name, content)
        for name in TABLES:
            folder.add(name)
        write_hand_tables(load_builtin(), folder.path)
    fetched = [name for name in (*files, *TABLES) if is_fetched(name)]
    return sum(len(gzip.compress((out / name).read_bytes())) for name in fetched)


def is_fetched(name: str) -> bool:
    """Whether a browser without WebGPU fetches this file; with WebGPU, it is the larger build."""
    return LARGER_BUILD not in name and name not in LICENSE_NAMES


def _own_files() -> dict[str, bytes]:
    folder = Path(str(importlib.resources.files("m3dhmr_jax"))) / "export" / "page"
    paths = [path for pattern in SOURCES for path in sorted(folder.glob(pattern))]
    return {path.name: path.read_bytes() for path in paths}


def _detector_files(detector: DetectorWeights) -> dict[str, bytes]:
    return {
        "palms.onnx": palm_model(detector.palms, half=True).SerializeToString(),
        "landmarks.onnx": landmark_model(detector.landmarks, half=True).SerializeToString(),
    }


def _hand_network(checkpoint: Path | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the page must know of the network, and its file."""
    if checkpoint is None:
        return {"network": None}, {}
    trained = load_trained(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NETWORK
        export_onnx(trained, path, True)
        content = path.read_bytes()
    faces, size = trained.hand.faces.tolist(), trained.network.image_size
    return {"network": {"file": NETWORK, "size": size, "faces": faces}}, {NETWORK: content}


def _license_files() -> dict[str, bytes]:
    apache = importlib.resources.files("m3dhmr_jax") / "predict" / "apache-2.0.txt"
    notice = NOTICE.format(
        apache=APACHE, runtime=ONNXRUNTIME_WEB.requirement, version=ONNXRUNTIME_WEB.version
    )
    contents = apache.read_bytes(), MIT.encode(), notice.encode()
    return dict(zip(LICENSE_NAMES, contents, strict=True))
