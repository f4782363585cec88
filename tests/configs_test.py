import pytest

from configs import ablation, mobrecon, resnet18, resnet34, variants

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


def test_what_is_not_named_is_the_first_of_what_is_allowed():
    assert variants.choose("", ALLOWED) == {"fruit": "apple", "size": "1"}
    assert variants.choose("size=2", ALLOWED) == {"fruit": "apple", "size": "2"}
    assert variants.choose("size=2,fruit=pear", ALLOWED) == {"fruit": "pear", "size": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fruit=plum", "fruit=plum must be one of apple, pear"),
        ("colour=red", r"'colour=red' in .* must be one of fruit=\.\.\., size=\.\.\."),
        ("apple", "'apple' in 'apple' must be one of fruit="),
        ("fruit=apple,", "'' in 'fruit=apple,' must be one of fruit="),
        ("fruit=apple,fruit=pear", "'fruit=pear' in .* at most once"),
    ],
)
def test_a_bad_argument_is_named_with_what_is_allowed(text, message):
    with pytest.raises(ValueError, match=message):
        variants.choose(text, ALLOWED)


def test_variants_are_the_default_but_for_what_they_name():
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


def test_mobrecon_is_the_default_but_for_decoder_loss_and_backbone():
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
