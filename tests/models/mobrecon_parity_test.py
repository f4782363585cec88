import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax.convert.names import MOBRECON
from m3dhmr_jax.mesh.hierarchy_file import load_hierarchy
from m3dhmr_jax.models.layers import double_bilinear, sample_at
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.models.spiral_conv import upsample
from tests.peer_weights import assert_matches, draw, fill, load_outputs, load_rule, run

pytestmark = pytest.mark.parity
DECODERS = {"dsconv": "decoder_dsconv", "spiral": "decoder_spiralconv"}
# What MobRecon owns but never calls.
DEAD = r"backbone\.dense_stack1\.(dense[45]|senet3)\."


@pytest.fixture(scope="module")
def rule(reference):
    return load_rule(reference / "densestack_params.json")


@pytest.fixture(scope="module")
def peer(reference):
    return load_outputs(reference / "densestack_io.npz")


@pytest.fixture(scope="module")
def backbone(rule):
    """The tensors of the backbone that are used."""
    drawn = draw(rule, "backbone")
    return {name: tensor for name, tensor in drawn.items() if not re.match(DEAD, name)}


def spiral_length(rule):
    separable = draw(rule, DECODERS["dsconv"])
    return math.prod(separable["decoder3d.head.spatial_layer.weight"].shape[1:])


@pytest.fixture(scope="module")
def hierarchy(reference, rule, tmp_path_factory):
    """The peer's hierarchy by way of a file, as a user gives them."""
    meshes = np.load(reference / "mesh_hierarchy.npz")
    spirals = np.load(reference / "spirals.npz")
    levels = range(sum(name.startswith("up_idx_") for name in meshes))
    arrays = {"coarsest": len(meshes[f"vertices_{len(levels)}"])}
    for i in levels:
        arrays[f"spirals_{i}"] = spirals[f"spiral_l{i}_seq{spiral_length(rule)}_dil1"]
        arrays[f"up_indices_{i}"] = meshes[f"up_idx_{i}"]
        arrays[f"up_weights_{i}"] = meshes[f"up_w_{i}"]
    path = tmp_path_factory.mktemp("hierarchy") / "hierarchy.npz"
    np.savez(path, **arrays)
    return load_hierarchy(path)


@pytest.fixture(scope="module")
def network(rule, backbone, hierarchy):
    """Makes the network with one of the decoders, with the peer's sizes and weights."""

    @functools.cache
    def make(operator):
        decoder = draw(rule, DECODERS[operator])
        layers = [t for name, t in decoder.items() if re.search(r"de_layer.*r\.weight$", name)]
        outputs = [len(t) for t in layers if t.ndim == 2]  # Dense layers end each of the blocks.
        config = ModelConfig(
            backbone="densestack",
            width=len(backbone["backbone.pre_layer.0.0.weight"]),
            encoding=len(backbone["backbone.mid_proj.0.weight"]),
            channels=tuple(outputs),
            mesh_operator=operator,
            spiral_length=spiral_length(rule),
            roi=False,
            landmark_head="clipped_mlp",
        )
        model = nnx.eval_shape(lambda: M3DHMR(config, hierarchy, rngs=nnx.Rngs(0)))
        model = fill(model, backbone | decoder, MOBRECON)
        model.eval()
        return model

    return make


def backbone_outputs(model, image):
    backbone = model.backbone
    thrink = backbone.stem(image)
    stack1 = double_bilinear(backbone.stack1(thrink).top)
    remapped = nnx.relu(backbone.remap(stack1))
    stack2 = backbone.stack2(nnx.relu(backbone.merge(jnp.concatenate([remapped, thrink], -1))))
    answer = model(image)
    return {
        "pre_layer_sample0": backbone.stem.unit(nnx.relu(backbone.stem.conv1(image)))[:1],
        "thrink": thrink,
        "stack1_out": stack1,
        "stack2_out": stack2.top,
        "stack2_mid": stack2.bottom,
        "latent": backbone(image).encoding,
        "uv": answer.landmarks_01,
        "dsconv_verts": answer.verts,
    }


def test_backbone_landmarks_and_mesh_match(network, peer):
    for name, got in run(backbone_outputs, network("dsconv"), peer["images"]).items():
        assert_matches(got, peer[name], name)


def decoder_outputs(decoder, latent, landmarks_01):
    sampled = sample_at(latent, landmarks_01)
    x = lifted = jnp.einsum("vn,bne->bve", decoder.lift[...], sampled)
    found = {"sampled": sampled, "lifted": lifted, "verts": decoder(sampled)}
    levels = decoder.hierarchy.levels[::-1]
    for i, (conv, level) in enumerate(zip(decoder.convs, levels, strict=True)):
        x = nnx.relu(conv(upsample(x, level.up_indices, level.up_weights), level.spirals))
        found[f"layer{i}"] = x
    return found


@pytest.mark.parametrize("operator", DECODERS)
def test_decoder_matches(network, peer, operator):
    decoder, compared = network(operator).decoder, []
    for prefix in ("", "dec_"):
        given = peer[f"{prefix}latent"], peer[f"{prefix}uv"]
        for name, got in run(decoder_outputs, decoder, *given).items():
            for key in (f"{prefix}{name}", f"{prefix}{operator}_{name}"):
                if key in peer:
                    assert_matches(got, peer[key], key)
                    compared.append(key)
    wanted = [n for n in peer if re.fullmatch(rf"(dec_)?(sampled|lifted|{operator}_.*)", n)]
    assert sorted(compared) == sorted(wanted)


def test_as_many_parameters_as_the_peer_has_less_those_it_never_calls(rule, network):
    dead = [e for e in rule["backbone"] if re.match(DEAD, e["name"])]
    unused = sum(math.prod(e["shape"]) for e in dead if not re.search("running|num_", e["name"]))
    for operator, entries in DECODERS.items():
        params = jax.tree.leaves(nnx.state(network(operator), nnx.Param))
        want = sum(rule["counts"][part]["params"] for part in ("backbone", entries)) - unused
        assert sum(leaf.size for leaf in params) == want


def test_upsampling_brings_surviving_vertices_back_to_their_places(reference, hierarchy):
    meshes = np.load(reference / "mesh_hierarchy.npz")
    for i, level in enumerate(hierarchy.levels):
        coarse = meshes[f"vertices_{i + 1}"].astype(np.float32)
        fine = np.asarray(upsample(jnp.asarray(coarse[None]), level.up_indices, level.up_weights))
        matrix = np.zeros((level.n_vertices, len(coarse)))
        np.put_along_axis(matrix, meshes[f"up_idx_{i}"], meshes[f"up_w_{i}"], axis=1)
        assert_matches(fine[0], matrix @ coarse, f"level {i}")
        kept = meshes[f"down_idx_{i}"]
        assert_matches(fine[0, kept], coarse, f"level {i}")
