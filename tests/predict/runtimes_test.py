"""Predictions do not depend on what runs the networks, and only the first process writes them."""

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from m3dhmr_jax import HandMeshPredictor
from m3dhmr_jax.camera.silhouette import SilhouetteExtent, silhouette_extent
from m3dhmr_jax.checkpoints.run_config import network_text
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.commands import image_options
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export import extras, model_cache
from m3dhmr_jax.export.check import drawn_hands, random_rotations
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict import exported_networks
from m3dhmr_jax.predict.crops import crop_matrix
from m3dhmr_jax.predict.detector_weights import weights_path
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.runtimes import JAX, RUNTIMES, find_runtime
from m3dhmr_jax.types import ROOT

EXACT = ("onnxruntime", "openvino")
OTHERS = [name for name in RUNTIMES if name != JAX]
BOX = (30, 20, 80, 90)
K = np.array([[300, 0, 79.5], [0, 300, 79.5], [0, 0, 1]])


@pytest.fixture(scope="session")
def written(tiny_network, tiny_config, tmp_path_factory):
    """A folder with a weights file, tiny.safetensors, and a cache with its network."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("written")
    metadata = {"config": network_text(tiny_config())}
    save_weights(folder / "tiny.safetensors", tiny_network.params, tiny_network.stats, metadata)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_cache, "cache_folder", lambda: folder / "cache")
        find_runtime("onnxruntime").load_network(folder / "tiny.safetensors")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(model_cache, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def weights(written, cache):
    """A weights file whose network is in the cache."""
    shutil.copytree(written / "cache", cache)
    return written / "tiny.safetensors"


@pytest.fixture
def without_detector(monkeypatch, tmp_path):
    monkeypatch.setenv("M3DHMR_DATA_DIR", str(tmp_path / "empty"))


def require(name):
    """Skips without the packages; OpenVINO must not be imported here: see `_import_openvino`."""
    try:
        RUNTIMES[name].check_installed()
    except UserError as error:
        pytest.skip(str(error))


def load(name, path):
    require(name)
    return find_runtime(name).load_network(path)


def inputs(n, size):
    """Crops of drawn hands, turned, one mirrored, of images with K."""
    crops = drawn_hands(load_builtin(), random_rotations(n), size)
    matrices = [crop_matrix(np.array([30.0, 20, 100, 100]), size, 0.7 * i) for i in range(n)]
    img_from_crop = [np.linalg.inv(np.vstack([each, [0, 0, 1]]))[:2] for each in matrices]
    ks = np.repeat(K[None], n, axis=0)
    return crops, np.array(img_from_crop, np.float32), ks.astype(np.float32)


def about_wrist(points_m, hands):
    return np.asarray(points_m) - np.asarray(hands.joints_m)[:, ROOT, None]


@pytest.mark.parametrize("name", EXACT)
def test_networks_compute_what_jax_does(name, weights, tiny_network):
    network = load(name, weights)
    net = tiny_network
    expected_of = JaxNetwork(net, load_builtin(), net.params, net.stats)
    assert network.weights_sha256 == expected_of.weights_sha256
    assert network.image_size == net.image_size
    for n in (1, 9):  # The latter takes two calls.
        args = inputs(n, net.image_size)
        hands, expected = network(*args, None), expected_of(*args, None)
        want_m = about_wrist(expected.verts_m, expected)
        # Of a hand's length, which the mesh of an untrained network exceeds.
        atol_m = 1e-5 * max(1, np.abs(want_m).max() / 0.2)
        np.testing.assert_allclose(about_wrist(hands.verts_m, hands), want_m, atol=atol_m)
        want_m = about_wrist(expected.joints_m, expected)
        np.testing.assert_allclose(about_wrist(hands.joints_m, hands), want_m, atol=atol_m)
        np.testing.assert_allclose(hands.landmarks_px, expected.landmarks_px, atol=0.05)
        np.testing.assert_allclose(hands.noise_px, expected.noise_px, rtol=0.01)
        assert hands.root_covariance_m2.shape == (n, 3, 3)
        assert all(x.dtype == np.float32 for x in hands)


def test_bfloat16_is_near(weights, tiny_network):
    args = inputs(2, tiny_network.image_size)
    rough, exact = (load(name, weights)(*args, None) for name in ("openvino-bf16", "openvino"))
    extent_m = np.ptp(about_wrist(exact.verts_m, exact), axis=1).max()
    difference_m = about_wrist(rough.verts_m, rough) - about_wrist(exact.verts_m, exact)
    assert np.abs(difference_m).max() < 0.05 * extent_m


@pytest.mark.parametrize(("name", "precision"), [("openvino", "f32"), ("openvino-bf16", "bf16")])
def test_openvino_is_told_its_precision(name, precision, weights, monkeypatch):
    """Its default is bfloat16 on some processors."""
    require(name)
    load(name, weights)  # Imports it as the program does.
    import openvino

    told, real = [], openvino.Core.compile_model

    def record(core, model, device, options):
        told.append(options["INFERENCE_PRECISION_HINT"])
        return real(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", record)
    load(name, weights)
    assert told == [precision]
    assert "openvino_telemetry" not in sys.modules


@pytest.mark.parametrize("name", EXACT)
def test_detectors_compute_what_jax_does(name, detector):
    require(name)
    networks, jax_networks = find_runtime(name).load_detector(weights_path()), detector._networks
    for function, side in (("detect_palms", 192), ("find_landmarks", 224)):
        images = drawn_hands(load_builtin(), random_rotations(3), side)
        found, expected = (getattr(each, function)(images) for each in (networks, jax_networks))
        assert type(found) is type(expected)
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("name", EXACT)
def test_a_predictor_finds_the_same_hands(name, weights, without_detector):
    require(name)
    image = drawn_hands(load_builtin(), random_rotations(1), 160)[0]
    found, expected = (
        HandMeshPredictor.from_checkpoint(weights, runtime=each)(image, BOX, "left", K)
        for each in (name, JAX)
    )
    assert found.handedness == ("left",)
    np.testing.assert_allclose(found.landmarks_px, expected.landmarks_px, atol=0.1)
    extent_m = np.ptp(expected.verts_m, axis=1).max()
    difference_m = about_wrist(found.verts_m, found) - about_wrist(expected.verts_m, expected)
    # Not exact: the crop is turned by what was seen at the first look.
    assert np.abs(difference_m).max() < 0.01 * extent_m


def test_no_hands_are_no_hands(weights):
    size = load("onnxruntime", weights).image_size
    crops, img_from_crop, ks = inputs(1, size)
    hands = load("onnxruntime", weights)(crops[:0], img_from_crop[:0], ks[:0], None)
    assert [x.shape for x in hands] == [(0, 21, 2), (0, 21, 3), (0, 778, 3), (0, 3, 3), (0,)]


def test_masks_place_hands_as_in_jax(weights, tiny_network):
    net = tiny_network
    args = inputs(2, net.image_size)
    mask = np.zeros((160, 160), bool)
    mask[40:110, 50:120] = True
    extents = SilhouetteExtent(*(np.stack([x, x]) for x in silhouette_extent(mask)))
    expected_of = JaxNetwork(net, load_builtin(), net.params, net.stats)
    hands, expected = (each(*args, extents) for each in (load("onnxruntime", weights), expected_of))
    without = expected_of(*args, None)
    scale_m = np.abs(expected.joints_m).max()
    assert np.abs(expected.joints_m - without.joints_m).max() > 0.01 * scale_m  # Masks matter.
    np.testing.assert_allclose(hands.joints_m, expected.joints_m, atol=1e-3 * scale_m)


@pytest.mark.parametrize("name", EXACT)
def test_copies_compute_the_same(name, weights):
    network = load(name, weights)
    args = inputs(1, network.image_size)
    copied = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(copied(*args, None).verts_m, network(*args, None).verts_m)


PROGRAM = """
import sys
import numpy as np
from m3dhmr_jax import HandMeshPredictor
from m3dhmr_jax.export import model_cache
from pathlib import Path
model_cache.cache_folder = lambda: Path(sys.argv[3])
predictor = HandMeshPredictor.from_checkpoint(sys.argv[2], runtime=sys.argv[1])
hands = predictor(np.zeros((160, 160, 3), np.uint8), (30, 20, 80, 90), "right")
assert len(hands.verts_m) == 1
print(*sorted({"jax", "flax", "scipy", "onnx"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", EXACT)
def test_a_later_process_imports_no_jax(name, weights, cache):
    require(name)
    detector = weights_path()
    if detector.is_file():
        find_runtime(name).load_detector(detector)
    command = [sys.executable, "-c", PROGRAM, name, str(weights), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_a_cached_network_is_not_written_again(weights, cache, monkeypatch):
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".onnx"]
    monkeypatch.delattr(exported_networks, "_export")
    monkeypatch.delattr(exported_networks, "write_cached")
    load("onnxruntime", weights)


def test_a_damaged_network_is_written_again(weights, cache):
    (path,) = cache.glob("*.onnx")
    intact = path.read_bytes()
    path.write_bytes(intact[:1000] + bytes([intact[1000] ^ 1]) + intact[1001:])
    load("onnxruntime", weights)
    assert path.read_bytes() == intact


def test_other_weights_have_another_entry(weights, cache, tiny_network, tiny_config, tmp_path):
    first = load("onnxruntime", weights)
    params, stats = tiny_network.params, tiny_network.stats
    metadata = {"config": network_text(tiny_config())}
    save_weights(tmp_path / "half.safetensors", params, stats, metadata, half=True)
    second = load("onnxruntime", tmp_path / "half.safetensors")
    assert first.weights_sha256 != second.weights_sha256
    assert len(list(cache.glob("*.onnx"))) == 2


def test_a_cached_network_of_another_hand_is_written_again(weights, monkeypatch):
    load("onnxruntime", weights)
    monkeypatch.setattr(exported_networks, "hand_id", lambda _: "another")
    calls, real = [], exported_networks._export
    monkeypatch.setattr(exported_networks, "_export", lambda path: calls.append(1) or real(path))
    load("onnxruntime", weights)
    assert calls == [1]


def test_a_cache_that_cannot_be_written_costs_a_warning(weights, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(model_cache, "cache_folder", lambda: tmp_path / "file" / "cache")
    with pytest.warns(UserWarning, match="cannot be kept"):
        network = load("onnxruntime", weights)
    assert network.image_size


def test_a_missing_checkpoint_is_explained(tmp_path, cache):
    require("onnxruntime")
    with pytest.raises(UserError, match="neither the workdir of a run nor a weights file"):
        HandMeshPredictor.from_checkpoint(tmp_path / "none", runtime="onnxruntime")
    assert not cache.exists()


def test_a_missing_detector_is_explained(tmp_path):
    require("onnxruntime")
    with pytest.raises(UserError, match="not installed"):
        find_runtime("onnxruntime").load_detector(tmp_path / "none")


def test_an_unknown_runtime_is_rejected(weights):
    for make in (HandMeshPredictor.from_checkpoint, HandMeshPredictor):
        with pytest.raises(UserError, match="runtime='tensorrt' must be one of jax, onnxruntime"):
            make(*([weights] if make != HandMeshPredictor else []), runtime="tensorrt")


@pytest.mark.parametrize(
    ("name", "line"), [("onnxruntime", r"\[export\]"), ("openvino", r"\[openvino\]")]
)
def test_a_missing_extra_is_named(name, line, weights, monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"pip install.*{line}"):
        HandMeshPredictor.from_checkpoint(weights, runtime=name)


def test_the_command_line_has_all_runtimes():
    assert tuple(RUNTIMES) == image_options.RUNTIMES
