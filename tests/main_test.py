import sys

import pytest
from absl import flags

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
def test_each_variant_has_its_own_folder(config, name):
    assert main.run_name(config) == name


@pytest.fixture
def parse(monkeypatch):
    def parse(*arguments):
        arguments = ["main.py", *arguments]
        monkeypatch.setattr(sys, "argv", arguments)
        return main.parse_flags(arguments)

    yield parse
    flags.FLAGS.unparse_flags()


def test_a_variant_reaches_the_config(parse):
    parse("--config=configs/ablation.py:decoder=dsconv,roi=false", "--config.model.width=8")
    model = main.CONFIG.value.model
    assert (model.mesh_operator, model.roi, model.width) == ("dsconv", False, 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--config=configs/ablation.py:decoder=foo"],
            "Error: flag --config=configs/ablation.py:decoder=foo: "
            "decoder=foo must be one of dsc, dsconv, spiral",
        ),
        (["--config=configs/resnet34.py:decoder=dsc"], "takes 0 positional arguments"),
        (["--config=configs/resnet18.py", "--colour=red"], "Unknown argument --colour=red"),
        (["--config=configs/resnet18.py", "--processes=two"], "--processes=two"),
        (
            ["--config=configs/resnet18.py", "--mode=predict", "--processes=2"],
            "Error: --mode=predict runs in one process",
        ),
        (["--config=configs/resnet18.py", "--config.batch_size=x"], "--config.batch_size=x"),
        (["--config=configs/resnet18.py", "--config.model.colour=red"], "unknown config field"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(parse, arguments, said):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert said in stop.value.code
    assert stop.value.code.startswith("Error: ")
    assert "\n" not in stop.value.code
