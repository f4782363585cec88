import re

import pytest
from flax import nnx

from m3dhmr_jax.convert.names import RESNET
from m3dhmr_jax.models.resnet import StackedResNet
from tests.reference_weights import assert_matches, fill, generate, load_outputs, load_rule, run


class Holder(nnx.Module):
    """The backbone under its name in the network."""

    def __init__(self, blocks, width):
        self.backbone = StackedResNet(blocks, width, encoding=2, landmarks=1, rngs=nnx.Rngs(0))


def blocks_of(tensors):
    """Residual blocks per stage, counted in the names."""
    found = {m.groups() for name in tensors if (m := re.match(r"layer(\d)\.(\d+)\.", name))}
    stages = [int(stage) for stage, _ in found]
    return tuple(stages.count(stage) for stage in sorted(set(stages)))


def features(trunk, image):
    stem, stages = trunk
    x = stem(image)
    maps = {"stem_relu_sample0": nnx.relu(stem.conv1(image))[:1], "stem": x}
    for number, stage in enumerate(stages, start=1):
        maps[f"layer{number}"] = x = stage(x)
    return maps


@pytest.mark.parity
@pytest.mark.long
def test_stem_and_stages_match_torchvision(reference):
    expected = load_outputs(reference / "resnet18_io.npz")
    rule = load_rule(reference / "resnet_params.json")
    image = expected.pop("images")
    compared = set()
    for name in (key for key, value in rule.items() if isinstance(value, list)):
        tensors = generate(rule, name)
        blocks, width = blocks_of(tensors), len(tensors["conv1.weight"])
        holder = fill(nnx.eval_shape(lambda b=blocks, w=width: Holder(b, w)), tensors, RESNET)
        holder.eval()
        trunk = holder.backbone.stem, holder.backbone.stack1.stages
        for key, x in run(features, trunk, image).items():
            key = key if key in expected else f"{name}_{key}"
            assert_matches(x, expected[key], key)
            compared.add(key)
    assert compared == expected.keys()
