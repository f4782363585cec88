import json
import os
import re
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.commands import image_options, synthesize
from m3dhmr_jax.commands import predict as predict_command
from m3dhmr_jax.commands.command import Command
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import outputs
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.runtime.files import DiskFullError
from m3dhmr_jax.synthetic import RECIPES
from m3dhmr_jax.types import SIDES
from tests.conftest import ROOT, exit_code


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_shows_the_options_and_examples(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(example in printed for example in cli.COMMANDS[name].examples)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_are_accepted(name):
    for example in cli.COMMANDS[name].examples:
        program, command, *arguments = shlex.split(example.rpartition("&&")[2])
        assert (program, command) == ("m3dhmr", name)
        cli.make_parser(name).parse_intermixed_args(arguments)


def test_top_help_lists_all_commands(capsys):
    assert exit_code(cli.main, []) == 2
    assert set(cli.COMMANDS) <= set(capsys.readouterr().err.split())


@pytest.mark.parametrize("arguments", [["paint"], ["score", "--pred=x"], ["predict", "--nothing"]])
def test_unknown_commands_and_options_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_choices_are_those_of_the_library():
    assert image_options.SIDES == SIDES
    assert predict_command.MESH_KINDS == outputs.MESH_KINDS
    assert set(synthesize.RECIPES) == set(RECIPES)


@pytest.fixture
def failing(monkeypatch):
    """Runs a command that raises this error."""

    def run(error):
        def fail(_):
            raise error

        command = Command("fails", ("m3dhmr fail",), lambda _: None, fail)
        monkeypatch.setitem(cli.COMMANDS, "fail", command)
        return exit_code(cli.main, ["fail"])

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("option 7"), 2),
        (DiskFullError("folder 7"), 1),
        (ChildProcessError("worker 7"), 1),
        (PermissionError(13, "Permission denied", "file 7"), 1),
    ],
)
def test_expected_errors_become_one_line(failing, capsys, error, code):
    assert failing(error) == code
    printed = capsys.readouterr().err
    assert re.fullmatch(r"Error: .*7'?\n", printed)


@pytest.mark.parametrize("error", [ValueError("axes"), OSError("?"), KeyError("typo")])
def test_other_errors_keep_their_traceback(failing, error):
    with pytest.raises(type(error)):
        failing(error)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(pixels, (100, 60)))
    return path


@pytest.fixture
def predict(tiny_network, monkeypatch, tmp_path):
    """Runs `m3dhmr predict` with an untrained network."""
    from m3dhmr_jax.hand import load_builtin

    net = tiny_network
    network = JaxNetwork(net, load_builtin(), net.params, net.stats)
    predictor = HandMeshPredictor(NetworkMethod(network))
    monkeypatch.setattr(HandMeshPredictor, "from_checkpoint", lambda *_: predictor)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: exit_code(
        cli.main, ["predict", "--checkpoint=run", *map(str, arguments)]
    )


@pytest.mark.long
def test_predict_applies_its_options(predict, image, tmp_path):
    """Also to images between options."""
    (tmp_path / "more.png").write_bytes(image.read_bytes())
    options = ["--freihand", "--meshes=ply", "--handedness=left", "--fov", 40]
    assert predict(image, "--out", "out", tmp_path / "more.png", *options) == 0
    lines = [json.loads(line) for line in (tmp_path / "out/hands.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == ["image.png", "more.png"]
    np.testing.assert_allclose(lines[0]["K"][0][0], 50 / np.tan(np.radians(20)), rtol=1e-5)
    assert (lines[0]["camera"], lines[0]["hands"][0]["handedness"]) == ("given", "left")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {
        ".txt",
        ".json",
        ".jsonl",
        ".ply",
        ".jpg",
    }


def test_predict_reads_freihand_s_crop_by_flag(predict, tmp_path):
    assert cv2.imwrite(str(tmp_path / "crop.png"), np.zeros((224, 224, 3), np.uint8))
    (tmp_path / "boxes.csv").write_text("image,x,y,width,height\ncrop.png,60,50,80,60\n")
    for options, crop_px in (
        (["--freihand"], [47, 47, 130, 130]),
        (["--freihand", "--boxes=boxes.csv"], [48, 28, 104, 104]),
    ):
        assert predict("crop.png", "--out=out", "--replace", *options) == 0
        (hand,) = json.loads((tmp_path / "out/hands.jsonl").read_text())["hands"]
        assert hand["crop_px"] == crop_px


def test_predict_names_the_command_that_installs_the_detector(
    predict, image, tmp_path, capsys, monkeypatch
):
    """Where hands must be found."""
    monkeypatch.setenv("M3DHMR_DATA_DIR", str(tmp_path / "empty"))
    for command in (["predict", "--out=out", str(image)], ["webcam"]):
        assert exit_code(cli.main, command) == 2
        assert "m3dhmr detector install" in capsys.readouterr().err
    assert predict(image, "--out=out") == 2
    assert "m3dhmr detector install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (["."], "image or video"),
        (["image.png", "--K=0,0,1,1"], "K = "),
        (["image.png", "--K=50,50,900,240"], "900"),
        (["image.png", "--fov=180"], "180"),
        (["image.png", "--meshes=stl"], "stl"),
        (["image.png", "--frames=0"], "--frames 0"),
        (["image.png", "--boxes=none.csv"], "none.csv"),
        (["image.png", "--masks=none"], "none"),
        (["--camera=93"], "camera 93"),
        (["none.jpg"], "none.jpg"),
        (["image.png", "--out=full"], "--out full"),
        (["image.png", "--out=full", "--replace"], "--out full"),
    ],
)
def test_predict_reports_a_user_s_mistake(predict, image, tmp_path, capsys, options, value):
    if options == ["."]:
        image.unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert predict("--out=out", *options) == 2
    error = capsys.readouterr().err
    assert value in error
    assert error.strip().splitlines()[-1].startswith("Error: ")


def test_score_prints_a_table_and_writes_on_request(tmp_path, capsys):
    points = np.random.default_rng(0).normal(size=(2, 799, 3)) * 0.03 + [0, 0, 0.6]
    parts = points[:, :21].tolist(), points[:, 21:].tolist()
    for name, part in zip(("xyz", "verts"), parts, strict=True):
        (tmp_path / f"evaluation_{name}.json").write_text(json.dumps(part))
    (tmp_path / "pred.json").write_text(json.dumps(parts))
    arguments = ["score", "--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path)]
    assert exit_code(cli.main, arguments) == 0
    assert "pred" in capsys.readouterr().out
    assert exit_code(cli.main, [*arguments, "--out", str(tmp_path / "scores.json")]) == 0
    assert (tmp_path / "scores.txt").is_file()
    assert exit_code(cli.main, [*arguments, "--out", str(tmp_path / "scores.csv")]) == 2
    assert "scores.csv" in capsys.readouterr().err
    assert (
        exit_code(cli.main, ["score", "--pred", str(tmp_path / "none.json"), "--gt", str(tmp_path)])
        == 2
    )
    assert "none.json" in capsys.readouterr().err


def test_synthesize_rejects_bad_numbers(tmp_path, capsys):
    arguments = ["synthesize", "--out", str(tmp_path / "set"), "--train=-4"]
    assert exit_code(cli.main, arguments) == 2
    assert "-4" in capsys.readouterr().err


def test_prepare_names_a_missing_folder(tmp_path, capsys):
    assert (
        exit_code(cli.main, ["prepare", str(tmp_path / "none"), "--out", str(tmp_path / "tfds")])
        == 2
    )
    assert "none" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["bulk", "--help"]])
def test_help_loads_nothing_slow(arguments):
    code = f"import sys; from m3dhmr_jax import cli\ntry: cli.main({arguments})\n"
    code += "except SystemExit: print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "usage: m3dhmr" in result.stdout
    assert not {"jax", "numpy", "cv2", "pyarrow", "flax"} & set(result.stdout.split())


@pytest.mark.long
def test_first_examples_run_as_pasted(trained, run_main, tmp_path):
    """In a folder with the names of the quickstart, whose network and dataset are tiny here."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "runs/quickstart").symlink_to(trained[0])
    (tmp_path / "data/quickstart").symlink_to(run_main.data / "images")
    for name in ("predict", "score", "synthesize", "prepare", "bulk"):
        command = (
            cli.COMMANDS[name].examples[0].replace("--train 200 --test 20", "--train 4 --test 2")
        )
        program = shlex.join([sys.executable, "-m", "m3dhmr_jax.cli"])
        result = subprocess.run(
            command.replace("m3dhmr", program, 1),
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, (command, result.stderr)
    assert len((tmp_path / "hands/hands.jsonl").read_text().splitlines()) == 6
    assert list((tmp_path / "bulk_hands").glob("hands-*.parquet"))
    assert (tmp_path / "data/synthetic/synthetic.json").is_file()
    assert (tmp_path / "data/tfds/freihand").is_dir()


def test_detector_is_installed_once(tmp_path, capsys, monkeypatch):
    """Whether weights are right is for the library to say."""
    from m3dhmr_jax.predict import detector_install, detector_weights

    installed = []

    def install(source):
        installed.append(source)
        return tmp_path / "weights"

    monkeypatch.setenv("M3DHMR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(detector_install, "install_detector", install)
    path = detector_weights.weights_path()
    assert path.is_relative_to(tmp_path)
    assert exit_code(cli.main, ["detector", "install"]) == 0
    assert "hand detector installed" in capsys.readouterr().out
    path.parent.mkdir(parents=True)
    path.write_bytes(b"corrupted")
    assert exit_code(cli.main, ["detector", "install"]) == 0
    assert installed == [None, None]

    monkeypatch.setattr(detector_weights, "load_detector_weights", lambda: None)
    assert exit_code(cli.main, ["detector", "install"]) == 0
    assert f"installed already: {path}" in capsys.readouterr().out
    assert installed == [None, None]
    assert exit_code(cli.main, ["detector", "install", "--from", "a.whl"]) == 0
    assert [*map(str, installed[2:])] == ["a.whl"]
