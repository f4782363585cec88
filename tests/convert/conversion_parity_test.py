"""From files as PyTorch writes them, by the command, to the peers' own numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import mobrecon, resnet18, resnet34
from m3dhmr_jax.checkpoints.weights import load_matching, load_weights
from m3dhmr_jax.convert.run import convert_file
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from m3dhmr_jax.models.layers import sample_at
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from tests.convert.torch_writer import save_legacy, save_zip
from tests.peer_weights import assert_matches, draw, load_outputs, load_rule, run

pytestmark = pytest.mark.parity
DECODERS = {"dsconv": "decoder_dsconv", "spiral": "decoder_spiralconv"}
RESNETS = {"resnet18": (resnet18, save_legacy), "resnet34": (resnet34, save_zip)}


@pytest.fixture(scope="module")
def hierarchy_file(reference, tmp_path_factory):
    """The peer's hierarchy as a user gives them."""
    meshes = np.load(reference / "mesh_hierarchy.npz")
    spirals = np.load(reference / "spirals.npz")
    levels = sum(name.startswith("up_idx_") for name in meshes)
    rule = {e["name"]: e for e in load_rule(reference / "densestack_params.json")["decoder_dsconv"]}
    length = math.prod(rule["decoder3d.head.spatial_layer.weight"]["shape"][1:])
    arrays = {"coarsest": len(meshes[f"vertices_{levels}"])}
    for i in range(levels):
        arrays[f"spirals_{i}"] = spirals[f"spiral_l{i}_seq{length}_dil1"]
        arrays[f"up_indices_{i}"] = meshes[f"up_idx_{i}"]
        arrays[f"up_weights_{i}"] = meshes[f"up_w_{i}"]
    path = tmp_path_factory.mktemp("hierarchy") / "hierarchy.npz"
    np.savez(path, **arrays)
    return path


def loaded(config, hierarchy, path):
    """The network of a config with the arrays of a weights file, and what is not in the file."""
    fields = {name: value for name, value in config.model.items() if name != "hierarchy"}
    model = nnx.eval_shape(lambda: M3DHMR(ModelConfig(**fields), hierarchy, rngs=nnx.Rngs(0)))
    model.eval()
    graphdef, *trees = nnx.split(model, nnx.Param, nnx.BatchStat)
    weights, filled, missing = load_weights(path), [], []
    for tree, found in zip(trees, (weights.params, weights.stats), strict=True):
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), nnx.to_pure_dict(tree))
        tree, adopted = load_matching(empty, found)
        assert adopted.unused == adopted.wrong_shape == ()
        filled.append(tree)
        missing += adopted.missing
    return nnx.merge(graphdef, *filled), missing


@pytest.mark.parametrize("operator", DECODERS)
def test_a_mobrecon_file_answers_as_mobrecon(reference, hierarchy_file, tmp_path, operator):
    rule = load_rule(reference / "densestack_params.json")
    counters = {e["name"]: np.array(9) for e in rule["backbone"] if e["branch"] == "skip"}
    state = draw(rule, "backbone") | counters | draw(rule, DECODERS[operator])
    save_zip(tmp_path / "mobrecon.pt", {"model_state_dict": state, "epoch": 1})
    out = tmp_path / "mobrecon.safetensors"
    said = "\n".join(convert_file(tmp_path / "mobrecon.pt", out, hierarchy_file))
    assert all(f"{left}: model_state_dict." in said for left in ("never calls", "nothing reads"))
    config = mobrecon.get_config("backbone=densestack")
    config.model.mesh_operator = operator
    network, missing = loaded(config, load_hierarchy(hierarchy_file), out)
    assert not missing
    peer = load_outputs(reference / "densestack_io.npz")
    # In parts, so that what is the same in both networks is compiled once.
    encoding, maps = run(lambda backbone, image: backbone(image), network.backbone, peer["images"])
    landmarks_01 = network.landmarks(maps)
    assert_matches(landmarks_01, peer["uv"], "uv")
    verts = run(lambda decoder, x: decoder(x), network.decoder, sample_at(encoding, landmarks_01))
    assert_matches(verts, peer[f"{operator}_verts"], f"{operator}_verts")


def features(trunk, image):
    """What the stem and the stages after it make of an image."""
    stem, stages = trunk
    x = stem(image)
    found = {"stem": x}
    for i, stage in enumerate(stages, start=1):
        found[f"layer{i}"] = x = stage(x)
    return found


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_file_answers_as_torchvision_in_both_stacks(reference, tmp_path, name):
    config_file, save = RESNETS[name]
    tensors = draw(load_rule(reference / "resnet_params.json"), name)
    save(tmp_path / "resnet.pth", tensors | {"fc.weight": np.zeros((2, 512), np.float32)})
    out = tmp_path / "resnet.safetensors"
    convert_file(tmp_path / "resnet.pth", out)
    network, missing = loaded(config_file.get_config(), build_hierarchy(load_builtin()), out)
    assert not [ours for ours in missing if "/stem/" in ours or "/stages/" in ours]
    peer = load_outputs(reference / "resnet18_io.npz")
    backbone = network.backbone
    for stack in (backbone.stack1, backbone.stack2):
        for layer, got in run(features, (backbone.stem, stack.stages), peer["images"]).items():
            want = peer[layer if layer in peer else f"{name}_{layer}"]
            assert_matches(got, want, layer)
