import math

import pytest

from configs import ablation, finetune, mobrecon, paper, quickstart, resnet18, resnet34, variants
from m3dhmr_jax.checkpoints.run_config import save_config
from m3dhmr_jax.errors import UserError

ALLOWED = {"fruit": ("apple", "pear"), "size": ("1", "2")}


def differences(config, base):
    """Fields that differ, by name, with their values in `config`."""
    own, other = (dict(zip(c.keys(), c.values(), strict=True)) for c in (flat(config), flat(base)))
    assert own.keys() == other.keys()
    return {name: value for name, value in own.items() if value != other[name]}


def flat(config, prefix=""):
    found = {}
    for name, value in config.items():
        if hasattr(value, "items"):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def test_choose_defaults_to_the_first_value():
    assert variants.choose("", ALLOWED) == {"fruit": "apple", "size": "1"}
    assert variants.choose("size=2", ALLOWED) == {"fruit": "apple", "size": "2"}
    assert variants.choose("size=2,fruit=pear", ALLOWED) == {"fruit": "pear", "size": "2"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fruit=plum", "fruit=plum"),
        ("colour=red", "colour=red"),
        ("apple", "apple"),
        ("fruit=apple,", "''"),
        ("fruit=apple,fruit=pear", "fruit=pear"),
    ],
)
def test_choose_rejects_bad_argument(text, named):
    with pytest.raises(UserError, match=named):
        variants.choose(text, ALLOWED)


def test_paper_config_differs_only_where_resnet18_departs():
    assert differences(paper.get_config(), resnet18.get_config()) == {
        "loss.reduction": "sum",
        "loss.weights.normal": 1.0,
        "optim.clip_norm": math.inf,
    }


def test_paper_config_matches_the_paper():
    config = paper.get_config()
    assert set(config.loss.weights.values()) == {1.0}
    assert config.loss.consistency_start_epoch == 0
    assert (config.batch_size, config.epochs) == (32, 38)
    optim = config.optim
    assert (optim.learning_rate, optim.lr_decay_epochs, optim.lr_decay_factor) == (1e-3, (30,), 0.1)
    assert optim.warmup_epochs == optim.ema_decay == 0


@pytest.mark.parametrize("decoder", ["dsconv", "spiral"])
def test_ablation_rejects_kernels_of_a_static_decoder(decoder):
    with pytest.raises(UserError, match="kernels=4"):
        ablation.get_config(f"decoder={decoder},kernels=4")


def test_ablation_overrides_only_what_it_names():
    base = resnet18.get_config()
    assert differences(ablation.get_config(), base) == {}
    assert differences(ablation.get_config("decoder=dsconv,roi=false"), base) == {
        "model.mesh_operator": "dsconv",
        "model.roi": False,
    }
    assert differences(ablation.get_config("kernels=4"), base) == {"model.kernels": 4}
    deeper = {"model.blocks": (3, 4, 6, 3)}
    assert differences(ablation.get_config("backbone=resnet34"), base) == deeper
    assert differences(resnet34.get_config(), base) == deeper


def test_mobrecon_overrides_decoder_loss_and_backbone():
    base = resnet18.get_config()
    common = {
        "model.mesh_operator": "dsconv",
        "model.roi": False,
        "loss.consistency_start_epoch": 5.0,
    }
    densestack = common | {
        "model.backbone": "densestack",
        "model.landmark_head": "clipped_mlp",
    }
    assert differences(mobrecon.get_config("backbone=resnet18"), base) == common
    assert differences(mobrecon.get_config("backbone=densestack"), base) == densestack
    assert differences(mobrecon.get_config(), base) == densestack
    deeper = common | {"model.blocks": (3, 4, 6, 3)}
    assert differences(mobrecon.get_config("backbone=resnet34"), base) == deeper


def test_finetune_continues_with_the_network_that_it_names(tmp_path):
    trained = quickstart.get_config()
    trained.update_from_flattened_dict({"model.width": 8, "model.image_size": 96, "hand": ""})
    save_config(tmp_path, trained)
    config = finetune.get_config(str(tmp_path))
    assert config.init_from == str(tmp_path)
    assert config.model == trained.model
    assert sum(share for _, share in config.data.mix) == pytest.approx(0.7)
    assert config.augment.upright
    with pytest.raises(UserError, match="nowhere"):
        finetune.get_config(str(tmp_path / "nowhere"))
