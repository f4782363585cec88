import sys

import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.checkpoints.run_config import config_text
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.run import export_network
from tests.conftest import exit_code


@pytest.fixture(scope="module")
def weights(tiny_config, tiny_network, tmp_path_factory):
    """A weights file of a network whose meshes and landmarks have the size of a hand's."""
    params = dict(tiny_network.params)
    head = {name: 0.1 * value for name, value in params["decoder"]["head"].items()}
    params["decoder"] = params["decoder"] | {"head": head}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, params, tiny_network.stats, {"config": config_text(tiny_config())})
    return path


def export(*arguments):
    return exit_code(cli.main, ["export", *map(str, arguments)])


@pytest.fixture
def installed():
    return pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=pytest.mark.long)])
def test_export_writes_a_checked_onnx_file(installed, weights, tmp_path, capsys, half):
    onnx, onnxruntime = installed
    out = tmp_path / "new" / "hand.onnx"
    flags = ["--half"] if half else []
    assert export("--checkpoint", weights, "--out", out, *flags) == 0, capsys.readouterr().err
    assert "64 drawn hands at most" in capsys.readouterr().out
    assert {path.name for path in out.parent.iterdir()} == {"hand.onnx", "place.py", "example.py"}
    onnx.checker.check_model(str(out), full_check=True)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    found = session.run(None, {"crops": np.zeros((2, 64, 64, 3), np.uint8)})
    assert [x.shape for x in found] == [(2, 778, 3), (2, 21, 3), (2, 21, 2)]
    metadata = session.get_modelmeta().custom_metadata_map
    assert '"model"' in metadata["config"]


def test_a_file_that_exists_is_not_replaced(weights, tmp_path):
    out = tmp_path / "hand.onnx"
    out.write_text("mine")
    with pytest.raises(UserError, match="exists and is not replaced"):
        export_network(weights, out, half=False)
    assert out.read_text() == "mine"


@pytest.mark.long
def test_a_file_that_miscomputes_exits_with_2(installed, weights, tmp_path, monkeypatch, capsys):
    """A runtime that is wrong by a millimetre."""
    from m3dhmr_jax.export import onnx_file

    def load(path):
        run = load_onnx(path)
        return lambda crops: run(crops)._replace(vertices_m=run(crops).vertices_m + 1e-3)

    load_onnx = onnx_file.load_onnx
    monkeypatch.setattr(onnx_file, "load_onnx", load)
    assert export("--checkpoint", weights, "--out", tmp_path / "hand.onnx") == 2
    assert "0.001 m" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["hand.pt", "hand.onnx.zip", "onnx"])
def test_an_unknown_suffix_is_refused(weights, tmp_path, name, capsys):
    assert export("--checkpoint", weights, "--out", tmp_path / name) == 2
    error = capsys.readouterr().err
    assert name in error
    assert ".onnx" in error
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named_with_its_installation(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'onnxruntime.*pip install "m3dhmr_jax\[export\]"'):
        export_network(weights, tmp_path / "hand.onnx", half=False)


def test_a_missing_litert_is_named_with_its_installation(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_converter", None)
    with pytest.raises(UserError, match=r'litert_converter.*pip install "m3dhmr_jax\[litert\]"'):
        export_network(weights, tmp_path / "hand.tflite", half=False)


def test_a_2d_pre_training_is_refused(installed, tiny_config, tmp_path):
    config = tiny_config()
    config.task = "pretrain2d"
    (tmp_path / "config.json").write_text(config_text(config))
    with pytest.raises(UserError, match=r"pretrain2d.*does not predict a mesh"):
        export_network(tmp_path, tmp_path / "hand.onnx", half=False)
    assert not (tmp_path / "hand.onnx").exists()
