import math

import pytest

from configs import ablation, finetune, mobrecon, paper, pretrain2d, quickstart, resnet18, resnet34
from m3dhmr_jax.config_fields import RUN_FIELDS, flatten, read_config
from m3dhmr_jax.errors import UserError

CONFIGS = (ablation, finetune, mobrecon, paper, pretrain2d, quickstart, resnet18, resnet34)


@pytest.mark.parametrize("module", CONFIGS)
def test_read_config_takes_every_config(module):
    config = module.get_config()
    assert read_config(config) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_every_steps", 0),
        ("seed", -1),
        ("seed", 2**63),
        ("data.source.seed", -1),
        ("data.source.synthetic_train", -1),
        ("data.source.synthetic_test", -1),
        ("data.loader.workers", -1),
        ("data.loader.threads", -1),
        ("epochs", math.inf),
        ("epochs", math.nan),
        ("checkpoint_every_epochs", math.inf),
        ("eval.every_epochs", math.inf),
        ("optim.warmup_epochs", math.inf),
        ("optim.lr_decay_epochs", ("a",)),
        ("optim.lr_decay_epochs", (math.inf,)),
        ("loss.consistency_start_epoch", math.inf),
        ("model.blocks", (2, 2, "a", 2)),
        ("model.channels", (2.5, 2, 2, 2)),
        ("augment.stretch", 0.7),
        ("appearance.blur", (0.5, 1.5)),
    ],
)
def test_read_config_names_a_field_with_a_bad_value(name, value):
    config = quickstart.get_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=f"^{name}="):
        read_config(config)


@pytest.mark.parametrize("name", RUN_FIELDS)
def test_read_config_names_a_missing_field(name):
    config = quickstart.get_config()
    *sections, last = name.split(".")
    inner = config
    for section in sections:
        inner = inner[section]
    with config.unlocked():
        del inner[last]
    with pytest.raises(UserError, match=f"lacks {name}"):
        read_config(config)


@pytest.mark.parametrize(
    "section", ["model", "augment", "appearance", "data.source", "data.loader"]
)
def test_read_config_names_an_unknown_field(section):
    config = quickstart.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({f"{section}.colour": 1})
    with pytest.raises(UserError, match=rf"the unknown {section}\.colour"):
        read_config(config)


def test_read_config_expands_the_home_folder_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    config = quickstart.get_config()
    paths = (
        *("hand", "init_from", "model.hierarchy", "eval.checkpoint"),
        *("data.source.folder", "data.source.prepared"),
    )
    config.update_from_flattened_dict({name: f"~/{name}" for name in paths})
    before, read = config.to_dict(), flatten(read_config(config).to_dict())
    assert {name: read[name] for name in paths} == {n: f"/home/someone/{n}" for n in paths}
    assert config.to_dict() == before
    config.hand = "~nobody_of_this_name/hand.pkl"
    with pytest.raises(UserError, match="~nobody_of_this_name"):
        read_config(config)
