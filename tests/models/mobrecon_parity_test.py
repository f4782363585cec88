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
from m3dhmr_jax.models.layers import sample_at, upsample_bilinear_2x
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.models.spiral_conv import upsample
from tests.reference_weights import assert_matches, fill, generate, load_outputs, load_rule, run

pytestmark = [pytest.mark.parity, pytest.mark.long]  # Compiles the complete network.
DECODERS = {"dsconv": "decoder_dsconv", "spiral": "decoder_spiralconv"}
# Defined in MobRecon but never called.
UNUSED = r"backbone\.dense_stack1\.(dense[45]|senet3)\."


@pytest.fixture(scope="module")
def rule(reference):
    return load_rule(reference / "densestack_params.json")


@pytest.fixture(scope="module")
def expected(reference):
    return load_outputs(reference / "densestack_io.npz")


@pytest.fixture(scope="module")
def backbone(rule):
    """The tensors of the backbone that are used."""
    tensors = generate(rule, "backbone")
    return {name: tensor for name, tensor in tensors.items() if not re.match(UNUSED, name)}


def spiral_length(rule):
    separable = generate(rule, DECODERS["dsconv"])
    return math.prod(separable["decoder3d.head.spatial_layer.weight"].shape[1:])


@pytest.fixture(scope="module")
def hierarchy(reference, rule, tmp_path_factory):
    """MobRecon's hierarchy, through a file."""
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
    """A function that creates the network with a decoder, MobRecon's sizes and its weights."""

    @functools.cache
    def make(operator):
        decoder = generate(rule, DECODERS[operator])
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
    stack1 = upsample_bilinear_2x(backbone.stack1(thrink).top)
    remapped = nnx.relu(backbone.remap(stack1))
    stack2 = backbone.stack2(nnx.relu(backbone.merge(jnp.concatenate([remapped, thrink], -1))))
    prediction = model(image)
    return {
        "pre_layer_sample0": backbone.stem.block(nnx.relu(backbone.stem.conv1(image)))[:1],
        "thrink": thrink,
        "stack1_out": stack1,
        "stack2_out": stack2.top,
        "stack2_mid": stack2.bottom,
        "latent": backbone(image).encoding,
        "uv": prediction.landmarks_01,
        "dsconv_verts": prediction.verts,
    }


def test_network_matches_mobrecon(network, expected):
    for name, got in run(backbone_outputs, network("dsconv"), expected["images"]).items():
        assert_matches(got, expected[name], name)


def decoder_outputs(decoder, latent, landmarks_01):
    sampled = sample_at(latent, landmarks_01)
    x = lifted = jnp.einsum("vn,bne->bve", decoder.lifting_matrix[...], sampled)
    found = {"sampled": sampled, "lifted": lifted, "verts": decoder(sampled)}
    levels = decoder.hierarchy.levels[::-1]
    for i, (layer, level) in enumerate(zip(decoder.layers, levels, strict=True)):
        x = nnx.relu(layer(upsample(x, level.up_indices, level.up_weights), level.spirals))
        found[f"layer{i}"] = x
    return found


@pytest.mark.parametrize("operator", DECODERS)
def test_decoder_matches_mobrecon(network, expected, operator):
    decoder, compared = network(operator).decoder, []
    for prefix in ("", "dec_"):
        given = expected[f"{prefix}latent"], expected[f"{prefix}uv"]
        for name, got in run(decoder_outputs, decoder, *given).items():
            for key in (f"{prefix}{name}", f"{prefix}{operator}_{name}"):
                if key in expected:
                    assert_matches(got, expected[key], key)
                    compared.append(key)
    wanted = [n for n in expected if re.fullmatch(rf"(dec_)?(sampled|lifted|{operator}_.*)", n)]
    assert sorted(compared) == sorted(wanted)


def test_parameter_count_matches_mobrecon(rule, network):
    unused_entries = [e for e in rule["backbone"] if re.match(UNUSED, e["name"])]
    unused = sum(
        math.prod(e["shape"]) for e in unused_entries if not re.search("running|num_", e["name"])
    )
    for operator, entries in DECODERS.items():
        params = jax.tree.leaves(nnx.state(network(operator), nnx.Param))
        want = sum(rule["counts"][part]["params"] for part in ("backbone", entries)) - unused
        assert sum(leaf.size for leaf in params) == want


def test_upsample_reproduces_the_kept_vertices(reference, hierarchy):
    meshes = np.load(reference / "mesh_hierarchy.npz")
    for i, level in enumerate(hierarchy.levels):
        coarse = meshes[f"vertices_{i + 1}"].astype(np.float32)
        fine = np.asarray(upsample(jnp.asarray(coarse[None]), level.up_indices, level.up_weights))
        matrix = np.zeros((level.n_vertices, len(coarse)))
        np.put_along_axis(matrix, meshes[f"up_idx_{i}"], meshes[f"up_w_{i}"], axis=1)
        assert_matches(fine[0], matrix @ coarse, f"level {i}")
        kept = meshes[f"down_idx_{i}"]
        assert_matches(fine[0, kept], coarse, f"level {i}")
