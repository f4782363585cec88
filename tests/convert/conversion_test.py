import jax
import numpy as np
import pytest

from m3dhmr_jax.checkpoints.weights import names_of
from m3dhmr_jax.convert.architectures import DECODER_SIGNS, recognise
from m3dhmr_jax.convert.conversion import WrongShape, convert
from m3dhmr_jax.convert.run import abstract_network
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from tests.convert.peer_files import BLOCKS, mobrecon, torchvision_resnet


@pytest.fixture(scope="module")
def trees_of():
    """Answers an architecture with our abstract trees."""
    hierarchy, known = build_hierarchy(load_builtin()), {}

    def answer(architecture):
        key = str(architecture.model)
        if key not in known:
            known[key] = abstract_network(architecture, hierarchy)
        return known[key]

    return answer


@pytest.fixture(scope="module")
def resnet(trees_of):
    """A ResNet-18, and our abstract trees for it."""
    arrays = torchvision_resnet(BLOCKS[18])
    return arrays, trees_of(recognise(arrays))


@pytest.mark.parametrize("operator", DECODER_SIGNS)
def test_each_array_of_a_whole_network_is_one_tensor_of_mobrecon(operator, trees_of):
    arrays = mobrecon(operator, trees_of)
    architecture = recognise(arrays)
    params, stats = trees_of(architecture)
    found = convert(arrays, architecture, params, stats)
    assert architecture.whole
    assert architecture.model["mesh_operator"] == operator
    assert list(found.params) == names_of(params)
    assert list(found.stats) == names_of(stats)
    assert len(found.used) == len(found.params) + len(found.stats)
    assert found.missing == found.wrong_shape == found.fresh == ()
    shapes = [leaf.shape for leaf in jax.tree.leaves((params, stats))]
    assert [x.shape for x in (found.params | found.stats).values()] == shapes
    assert set(found.left.values()) == {
        "layers MobRecon never calls",
        "counters that nothing reads",
    }


@pytest.mark.parametrize("depth", BLOCKS)
def test_a_resnet_fills_stem_and_stages_of_both_stacks_alike(depth, trees_of):
    arrays = torchvision_resnet(BLOCKS[depth])
    architecture = recognise(arrays)
    params, stats = trees_of(architecture)
    found = convert(arrays, architecture, params, stats)
    assert architecture.title == f"ResNet-{depth}"
    assert architecture.model == {"blocks": BLOCKS[depth]}
    for part, own in (("params", found.params), ("stats", found.stats)):
        first = {name: x for name, x in own.items() if name.startswith("backbone/stack1/")}
        assert first, part
        for name, x in first.items():
            np.testing.assert_array_equal(x, own[name.replace("stack1", "stack2")])
    stages = len(found.params) + len(found.stats) - 5  # Those of the stem.
    assert stages // 2 + 5 == len(found.used)
    assert {found.left[name] for name in ("fc.weight", "fc.bias")} == {
        "the classifier of another task"
    }
    assert len(found.used) + len(found.left) == len(arrays)
    own = {*found.params, *found.stats}
    assert own | set(found.fresh) == {*names_of(params), *names_of(stats)}
    assert not own & set(found.fresh)


def test_numbers_come_in_the_type_of_ours(resnet):
    arrays, trees = resnet
    halves = {
        name: x.astype(np.float16) if x.dtype == np.float32 else x for name, x in arrays.items()
    }
    found = convert(halves, recognise(halves), *trees)
    assert {x.dtype for x in found.params.values()} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match=r"conv1\.weight holds int64, not fractional numbers"):
        convert({**arrays, "conv1.weight": np.zeros((64, 3, 7, 7), int)}, recognise(arrays), *trees)


def test_what_is_missing_or_of_another_shape_is_told_with_both_shapes(resnet):
    arrays, trees = resnet
    arrays = {**arrays, "conv1.weight": np.zeros((64, 1, 7, 7), np.float32)}
    del arrays["layer1.0.bn1.running_var"]
    found = convert(arrays, recognise(arrays), *trees)
    assert found.missing == ("layer1.0.bn1.running_var",)
    assert found.wrong_shape == (
        WrongShape("conv1.weight", (64, 1, 7, 7), "backbone/stem/conv1/conv/kernel", (7, 7, 3, 64)),
    )
    assert "backbone/stem/conv1/conv/kernel" not in found.params
    assert "conv1.weight" not in {*found.left, *found.used}


@pytest.mark.parametrize("prefix", ["module.", "state_dict.", "checkpoint.model.module."])
def test_names_may_stand_under_others(resnet, prefix):
    arrays, trees = resnet
    below = {prefix + name: x for name, x in arrays.items()} | {"optimizer.0": np.zeros(3)}
    found = convert(below, recognise(below), *trees)
    assert len(found.used) == len(convert(arrays, recognise(arrays), *trees).used)
    assert "outside of the network" in found.left["optimizer.0"]


def test_the_backbone_of_mobrecon_may_come_alone(trees_of):
    whole = mobrecon("dsconv", trees_of)
    for prefix in ("", "state_dict.module."):
        alone = {
            prefix + name.removeprefix("backbone."): x
            for name, x in whole.items()
            if name.startswith("backbone.")
        }
        architecture = recognise(alone)
        found = convert(alone, architecture, *trees_of(architecture))
        assert not architecture.whole
        assert not found.missing
        assert {name.split("/")[0] for name in found.params} == {"backbone", "landmarks"}
        assert {name.split("/")[0] for name in found.fresh} == {"decoder"}


def test_several_networks_are_not_guessed_from():
    names = torchvision_resnet(BLOCKS[18])
    both = [prefix + name for prefix in ("model.", "ema.") for name in names]
    with pytest.raises(ValueError, match=r"holds 2 networks \(model\.\*, ema\.\*\): choose one"):
        recognise(both)


@pytest.mark.parametrize(
    ("names", "looks_like"),
    [
        (torchvision_resnet((3, 4, 6, 3), bottleneck=True), r"\(3, 4, 6, 3\) bottleneck blocks"),
        (torchvision_resnet((1, 1, 1, 1)), r"a ResNet with stages of \(1, 1, 1, 1\) blocks"),
        (["features.0.weight", "features.0.bias"], r"features\.0\.bias, features\.0\.weight"),
        ([], "none"),
        (
            [
                "backbone.dense_stack1.dense1.conv1.conv3x3.0.0.weight",
                "decoder3d.de_layer.0.conv.other.weight",
            ],
            r"under another decoder \(decoder3d\.de_layer\.0\.conv\.other\.weight",
        ),
    ],
)
def test_other_networks_are_refused_by_what_they_look_like(names, looks_like):
    with pytest.raises(ValueError, match=f"{looks_like}.*understood are torchvision's ResNet-18"):
        recognise(list(names))
