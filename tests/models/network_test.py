import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.models.decoder import MESH_OPERATORS, MeshDecoder
from m3dhmr_jax.models.heads import soft_argmax
from m3dhmr_jax.models.network import M3DHMR, ModelConfig
from m3dhmr_jax.models.resnet import Hourglass, Stem

SMALL = ModelConfig(
    image_size=64, blocks=(1, 1, 1, 1), width=4, encoding=8, channels=(8, 8, 8, 4), kernels=2
)


@pytest.fixture(scope="module")
def hierarchy():
    return build_hierarchy(load_builtin())


@pytest.fixture(scope="module")
def small(hierarchy):
    return M3DHMR(SMALL, hierarchy, rngs=nnx.Rngs(0))


def count(*modules):
    leaves = jax.tree.leaves([nnx.state(module, nnx.Param) for module in modules])
    return sum(leaf.size for leaf in leaves)


def resnet(blocks):
    return Stem(64, dtype=jnp.float32, rngs=nnx.Rngs(0)), Hourglass(
        blocks, 64, dtype=jnp.float32, rngs=nnx.Rngs(0)
    )


@pytest.mark.parametrize(
    ("blocks", "torchvision"), [((2, 2, 2, 2), 11_176_512), ((3, 4, 6, 3), 21_284_672)]
)
def test_stem_and_stages_match_torchvision_parameter_count(blocks, torchvision):
    stem, hourglass = nnx.eval_shape(lambda: resnet(blocks))
    assert count(stem, *hourglass.stages) == torchvision


@pytest.mark.long
def test_network_output_shapes(hierarchy):
    model = nnx.eval_shape(lambda: M3DHMR(ModelConfig(), hierarchy, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32)
    prediction = jax.eval_shape(
        lambda state, image: nnx.merge(graphdef, state)(image), state, image
    )
    assert prediction.verts.shape == (2, 778, 3)
    assert prediction.landmarks_01.shape == (2, 21, 2)
    features = jax.eval_shape(
        lambda state, image: nnx.merge(graphdef, state).backbone(image), state, image
    )
    assert features.encoding.shape == (2, 4, 4, 256)
    assert features.landmark_maps.shape == (2, 32, 32, 21)
    assert model.decoder.lifting_matrix.shape == (49, 21)


def test_network_initial_landmarks_and_lifting_matrix(small):
    assert (small.decoder.lifting_matrix[...] == 0.01).all()
    landmarks_01 = small.landmark_head(jnp.zeros((2, 16, 16, 21)))
    np.testing.assert_array_equal(landmarks_01, np.full((2, 21, 2), 0.5))


def test_soft_argmax_locates_cell_centres():
    """Cells are areas of the crop: the centre of the first of eight is at a sixteenth."""
    maps = np.zeros((1, 8, 16, 21), np.float32)
    maps[0, 2, 5, 3] = 50
    maps[0, 0, :2, 4] = 50
    got = np.asarray(soft_argmax(jnp.asarray(maps)))[0]
    np.testing.assert_allclose(got[3], [5.5 / 16, 2.5 / 8], atol=1e-4)
    np.testing.assert_allclose(got[4], [1 / 16, 0.5 / 8], atol=1e-4)
    np.testing.assert_allclose(got[0], [0.5, 0.5], atol=1e-4)


def test_landmark_head_reads_each_landmark_from_its_own_map(small):
    maps = jax.random.normal(jax.random.key(0), (1, 16, 16, 21))
    changed = maps.at[..., 4].add(1.0)
    moved = np.asarray(small.landmark_head(changed) != small.landmark_head(maps)).any(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(moved), [4])


@pytest.mark.long
def test_mesh_gradient_reaches_the_landmark_head(small):
    """Sampling (eq. 1) is differentiable in the landmarks."""
    inference = nnx.view(small, use_running_average=True)
    graphdef, params, rest = nnx.split(inference, nnx.Param, ...)
    image = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))

    @jax.jit
    @jax.grad
    def grad_fn(params):
        return jnp.sum(nnx.merge(graphdef, params, rest)(image).verts ** 2)

    grads = grad_fn(nnx.to_pure_dict(params))
    assert jnp.abs(grads["landmark_head"]["out"]["kernel"]).max() > 0


class FixedFeatures(nnx.Module):
    """Replaces the last layer before the head."""

    def __init__(self, features):
        self.features = nnx.Param(features)

    def __call__(self, x, spirals):
        return jnp.broadcast_to(self.features[...], (len(x), len(spirals), 4))


def test_roi_head_is_confined_to_each_region(hierarchy):
    hand = load_builtin()
    decoder = MeshDecoder(21, 8, (8, 8, 8, 4), hierarchy, kernels=2, rngs=nnx.Rngs(0))
    fixed = FixedFeatures(jax.random.uniform(jax.random.key(0), (1, 778, 4)))
    decoder.layers = nnx.List([*list(decoder.layers)[:-1], fixed])
    graphdef, state = nnx.split(decoder)
    pose_features = jnp.ones((1, 21, 8))
    decode = jax.jit(lambda state: nnx.merge(graphdef, state)(pose_features)[0])
    before = decode(state)
    for region in range(6):
        inside = np.asarray(hand.regions == region)
        fixed.features[...] = fixed.features[...] + inside[None, :, None]
        after = decode(nnx.state(decoder))
        moved = np.asarray((after != before).any(axis=1))
        np.testing.assert_array_equal(moved, inside)
        before = after


def decoder_pair(hierarchy):
    """Decoders with equal parameters that compute in float32 and in bfloat16.

    The untrained lifting matrix makes all vertices alike, a mesh of almost a point, whose relative
    error is meaningless; theirs differs per vertex, as a trained one does.
    """
    for dtype in (jnp.float32, jnp.bfloat16):
        decoder = MeshDecoder(
            21, 8, (8, 8, 8, 4), hierarchy, kernels=2, dtype=dtype, rngs=nnx.Rngs(0)
        )
        decoder.lifting_matrix[...] = jax.random.normal(jax.random.key(1), (49, 21)) / 4
        yield decoder


def test_bfloat16_head_places_vertices_as_float32(hierarchy):
    """In bfloat16 a vertex at 0.5 to 1 units would be rounded to a grid of 0.8 mm."""
    full, low = decoder_pair(hierarchy)
    features = jax.random.uniform(jax.random.key(0), (1, 778, 4)).astype(jnp.bfloat16)
    spirals = full.head_spirals.indices
    want = full.head(features.astype(jnp.float32), spirals)
    assert 0.5 < jnp.abs(want).max() < 2
    np.testing.assert_allclose(low.head(features, spirals), want, atol=1e-5)  # 0.002 mm.


@pytest.mark.long
def test_bfloat16_decoder_matches_float32(hierarchy):
    pose_features = jax.random.normal(jax.random.key(0), (2, 21, 8))
    want, got = (
        jax.jit(lambda x, decoder=decoder: decoder(x))(
            pose_features.astype(decoder.layers[0].dtype)
        )
        for decoder in decoder_pair(hierarchy)
    )
    assert got.dtype == jnp.float32
    assert jnp.sqrt(jnp.mean((got - want) ** 2)) < 0.05 * jnp.sqrt(jnp.mean(want**2))


def grads_and_residual_bytes(remat):
    """Gradients and statistics of an hourglass, and the size of the saved residuals."""
    module = Hourglass((2, 1), 4, remat=remat, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 4))

    def loss(params):
        merged = nnx.merge(graphdef, params, stats)
        total = jnp.mean(merged(x).top ** 2)
        return total, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

    vjp = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
    residual_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(vjp))
    return jax.jit(jax.grad(loss, has_aux=True))(params), residual_bytes


@pytest.mark.long
def test_remat_saves_memory_and_preserves_gradients():
    (plain, plain_bytes), (remat, remat_bytes) = map(grads_and_residual_bytes, (False, True))
    assert remat_bytes < 0.6 * plain_bytes
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, remat, plain)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 100),
        ("image_size", 0),
        ("blocks", (2, 2, 2)),
        ("blocks", (2, 0, 2, 2)),
        ("channels", (8, 8, 8)),
        ("channels", (8, 8, 8, 0)),
        ("width", 0),
        ("encoding", 1),
        ("kernels", 0),
        ("roi_dilation", 0),
        ("compute_dtype", "float16"),
        ("backbone", "vgg"),
        ("mesh_operator", "gcn"),
        ("landmark_head", "argmax"),
    ],
)
def test_model_config_rejects_bad_field(field, value):
    with pytest.raises(UserError, match=re.escape(f"model.{field}={value!r}")):
        ModelConfig(**{field: value})


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"remat": True}])
def test_model_config_rejects_what_densestack_lacks(changes):
    ((field, value),) = changes.items()
    with pytest.raises(UserError, match=f"model.{field}={value}"):
        ModelConfig(backbone="densestack", **changes)


@pytest.mark.parametrize(
    ("backbone", "frozen_blocks"), [("mobilenet", 15), ("mobilenet", -1), ("resnet", 1)]
)
def test_model_config_rejects_frozen_blocks_that_do_not_exist(backbone, frozen_blocks):
    with pytest.raises(UserError, match=f"model.frozen_blocks={frozen_blocks} must lie in 0"):
        ModelConfig(backbone=backbone, landmark_head="dense", frozen_blocks=frozen_blocks)


def test_model_config_rejects_maps_that_the_mobilenet_lacks():
    with pytest.raises(UserError, match=r"model.landmark_head='mlp' must be 'dense'"):
        ModelConfig(backbone="mobilenet")


def test_decoder_rejects_channels_of_other_levels(hierarchy):
    with pytest.raises(UserError, match=r"channels=\(8, 8\)"):
        MeshDecoder(21, 8, (8, 8), hierarchy, rngs=nnx.Rngs(0))


def test_decoder_rejects_roi_without_region_spirals(hierarchy):
    without = dataclasses.replace(hierarchy, roi_spirals=None)
    with pytest.raises(ValueError, match="roi=True"):
        MeshDecoder(21, 8, (8, 8, 8, 4), without, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("operator", MESH_OPERATORS)
def test_decoder_output_shape(hierarchy, operator):
    decoder = nnx.eval_shape(
        lambda: MeshDecoder(21, 8, (8, 8, 8, 4), hierarchy, operator=operator, rngs=nnx.Rngs(0))
    )
    graphdef, state = nnx.split(decoder)
    pose_features = jax.ShapeDtypeStruct((2, 21, 8), jnp.float32)
    verts = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, pose_features)
    assert verts.shape == (2, 778, 3)
