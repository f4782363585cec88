import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from absl import flags

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.command_line import one_line_errors, parse_flags
from m3dhmr_jax.runtime.files import DiskFullError
from m3dhmr_jax.runtime.preemption import Preempted

main = pytest.importorskip("main")  # Needs the loader's libraries.


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("configs/resnet18.py", "resnet18"),
        ("/elsewhere/my_own.py", "my_own"),
        ("configs/ablation.py:decoder=dsconv,roi=false", "ablation-decoder-dsconv-roi-false"),
        ("configs/mobrecon.py:backbone=resnet34", "mobrecon-backbone-resnet34"),
    ],
)
def test_run_name_differs_for_each_variant(config, name):
    assert main.run_name(config) == name


@pytest.fixture
def parse(monkeypatch):
    def parse(*arguments):
        arguments = ["main.py", *arguments]
        monkeypatch.setattr(sys, "argv", arguments)
        return parse_flags(arguments)

    yield parse
    flags.FLAGS.unparse_flags()


def test_parse_flags_passes_a_variant_to_the_config(parse):
    parse("--config=configs/ablation.py:decoder=dsconv,roi=false", "--config.model.width=8")
    model = main.CONFIG.value.model
    assert (model.mesh_operator, model.roi, model.width) == ("dsconv", False, 8)


@pytest.mark.parametrize(
    ("arguments", "offending"),
    [
        (["--config=configs/ablation.py:decoder=foo"], "decoder=foo must be one of"),
        (["--config=configs/resnet34.py:decoder=dsc"], "takes 0 positional arguments"),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=configs/resnet18.py", "--colour=red"], "colour"),
        (["--config=configs/resnet18.py", "red"], "red"),
        (["--config=configs/resnet18.py", "--processes=two"], "--processes=two"),
        (["--config=configs/resnet18.py", "--mode=predict"], "--mode=predict"),
        (["--config=configs/resnet18.py", "--config.batch_size=x"], "--config.batch_size=x"),
        (["--config=configs/resnet18.py", "--config.model.colour=red"], "--config.model.colour"),
    ],
)
def test_parse_flags_reports_one_line(parse, capsys, arguments, offending):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert offending in line


@pytest.fixture
def run(parse, monkeypatch, tmp_path):
    """Runs main with `train` in place of training."""
    for name in ("processes.initialize", "processes.barrier", "preemption.install_sigterm_handler"):
        monkeypatch.setattr(f"m3dhmr_jax.runtime.{name}", lambda *_: None)
    parse("--config=configs/quickstart.py", "--mode=train", f"--workdir={tmp_path}")

    def run(train):
        monkeypatch.setattr(main, "train", train)
        main.main(["main.py"])

    return run


def test_main_expands_the_home_folder_of_the_workdir(run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    flags.FLAGS.workdir = "~/runs/mine"
    found = []
    run(lambda config, workdir: found.append(workdir))
    assert found == [Path("/home/someone/runs/mine")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("batch_size=13 is wrong"), 2),
        (DiskFullError("run: no space"), 1),
        (FloatingPointError("step 3: not finite"), 1),
        (PermissionError(13, "Permission denied", "run/config.json"), 1),
        (Preempted("by SIGTERM"), 143),
    ],
)
def test_main_reports_one_line(run, capsys, error, code):
    def train(config, workdir):
        raise error

    with pytest.raises(SystemExit) as stop:
        run(train)
    assert stop.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert str(error) in line


def test_main_keeps_the_traceback_of_a_programmers_mistake(run):
    """Swapped axes of eq. 2."""

    def train(config, workdir):
        jnp.einsum("nv,bne->bve", jnp.ones((49, 21)), jnp.ones((2, 21, 8)))

    with pytest.raises(ValueError, match="label"):
        run(train)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("shapes"),
        OSError("no file is named"),
        KeyError("x"),
        AssertionError("a fault"),
        RuntimeError("a fault"),
    ],
)
def test_one_line_errors_lets_other_errors_pass(error):
    with pytest.raises(type(error)), one_line_errors():
        raise error


def test_one_line_errors_explains_a_missing_device(monkeypatch, capsys):
    """JAX only asserts that there is one."""

    def devices():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(SystemExit) as stop, one_line_errors():
        jax.devices()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: JAX_PLATFORMS=")
