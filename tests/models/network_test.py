import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.mesh.hierarchy import build_hierarchy
from m3dhmr_jax.models.decoder import MeshDecoder
from m3dhmr_jax.models.network import M3DHMR, ModelConfig, soft_argmax
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
def test_stem_and_stages_have_as_many_parameters_as_torchvision(blocks, torchvision):
    stem, hourglass = nnx.eval_shape(lambda: resnet(blocks))
    assert count(stem, *hourglass.stages) == torchvision


def test_the_papers_network_answers_a_mesh_and_landmarks(hierarchy):
    model = nnx.eval_shape(lambda: M3DHMR(ModelConfig(), hierarchy, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    image = jax.ShapeDtypeStruct((2, 128, 128, 3), jnp.float32)
    answer = jax.eval_shape(lambda state, image: nnx.merge(graphdef, state)(image), state, image)
    assert answer.verts.shape == (2, 778, 3)
    assert answer.landmarks_01.shape == (2, 21, 2)
    features = jax.eval_shape(
        lambda state, image: nnx.merge(graphdef, state).backbone(image), state, image
    )
    assert features.encoding.shape == (2, 4, 4, 256)
    assert features.landmark_maps.shape == (2, 32, 32, 21)
    lift = model.decoder.lift
    assert lift.shape == (49, 21)


def test_untrained_landmarks_lie_in_the_middle_and_the_lift_starts_even(small):
    assert (small.decoder.lift[...] == 0.01).all()
    middle = small.landmarks(jnp.zeros((2, 16, 16, 21)))
    np.testing.assert_array_equal(middle, np.full((2, 21, 2), 0.5))


def test_a_soft_argmax_finds_the_middle_of_a_peak_in_the_crop():
    """Cells are areas of the crop: the middle of the first of eight lies at a sixteenth."""
    maps = np.zeros((1, 8, 16, 21), np.float32)
    maps[0, 2, 5, 3] = 50
    maps[0, 0, :2, 4] = 50
    got = np.asarray(soft_argmax(jnp.asarray(maps)))[0]
    np.testing.assert_allclose(got[3], [5.5 / 16, 2.5 / 8], atol=1e-4)
    np.testing.assert_allclose(got[4], [1 / 16, 0.5 / 8], atol=1e-4)
    np.testing.assert_allclose(got[0], [0.5, 0.5], atol=1e-4)


def test_each_landmark_is_read_from_its_own_map(small):
    maps = jax.random.normal(jax.random.key(0), (1, 16, 16, 21))
    changed = maps.at[..., 4].add(1.0)
    moved = np.asarray(small.landmarks(changed) != small.landmarks(maps)).any(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(moved), [4])


def test_the_mesh_pulls_on_where_its_features_are_read(small):
    """Sampling is differentiable: vertices teach the landmarks."""
    in_use = nnx.view(small, use_running_average=True)
    graphdef, params, rest = nnx.split(in_use, nnx.Param, ...)
    image = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))

    @jax.jit
    @jax.grad
    def slope(params):
        return jnp.sum(nnx.merge(graphdef, params, rest)(image).verts ** 2)

    out = slope(nnx.to_pure_dict(params))["landmarks"]["out"]["kernel"]
    assert jnp.abs(out).max() > 0


class Given(nnx.Module):
    """Stands in for the last spiral convolution before the head."""

    def __init__(self, features):
        self.features = nnx.Param(features)

    def __call__(self, x, spirals):
        return jnp.broadcast_to(self.features[...], (len(x), len(spirals), 4))


def test_no_region_sees_the_features_of_another(hierarchy):
    hand = load_builtin()
    decoder = MeshDecoder(21, 8, (8, 8, 8, 4), hierarchy, kernels=2, rngs=nnx.Rngs(0))
    given = Given(jax.random.uniform(jax.random.key(0), (1, 778, 4)))
    decoder.convs = nnx.List([*list(decoder.convs)[:-1], given])
    graphdef, state = nnx.split(decoder)
    pose_features = jnp.ones((1, 21, 8))
    decode = jax.jit(lambda state: nnx.merge(graphdef, state)(pose_features)[0])
    before = decode(state)
    for region in range(6):
        inside = np.asarray(hand.regions == region)
        given.features[...] = given.features[...] + inside[None, :, None]
        after = decode(nnx.state(decoder))
        moved = np.asarray((after != before).any(axis=1))
        np.testing.assert_array_equal(moved, inside)
        before = after


def test_half_precision_still_answers_in_full(hierarchy):
    config = ModelConfig(**(vars(SMALL) | {"compute_dtype": "bfloat16"}))
    model = nnx.eval_shape(lambda: M3DHMR(config, hierarchy, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    answer = jax.eval_shape(lambda state, image: nnx.merge(graphdef, state)(image), state, image)
    assert answer.verts.dtype == jnp.float32
    assert answer.landmarks_01.dtype == jnp.float32


def slope_and_kept_bytes(remat):
    """Gradients and statistics of a first stage, and the size of what is kept to compute them."""
    module = Hourglass((2, 1), 4, remat=remat, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 4))

    def loss(params):
        merged = nnx.merge(graphdef, params, stats)
        total = jnp.mean(merged(x).top ** 2)
        return total, nnx.to_pure_dict(nnx.state(merged, nnx.BatchStat))

    backward = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
    kept_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))
    return jax.jit(jax.grad(loss, has_aux=True))(params), kept_bytes


def test_computing_blocks_again_keeps_less_for_the_same_numbers():
    (kept, kept_bytes), (again, again_bytes) = map(slope_and_kept_bytes, (False, True))
    assert again_bytes < 0.6 * kept_bytes
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, again, kept)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 100, "image_size=100 must be a positive multiple of 32"),
        ("image_size", 0, "image_size=0 must be a positive multiple of 32"),
        ("blocks", (2, 2, 2), r"blocks=\(2, 2, 2\) must have 4 entries"),
        ("blocks", (2, 0, 2, 2), r"blocks=\(2, 0, 2, 2\) must be at least 1"),
        ("channels", (8, 8, 8), r"channels=\(8, 8, 8\) must have 4 entries"),
        ("channels", (8, 8, 8, 0), r"channels=\(8, 8, 8, 0\) must be at least 1"),
        ("width", 0, "width=0 must be at least 1"),
        ("encoding", 1, "encoding=1 must be at least 2"),
        ("kernels", 0, "kernels=0 must be at least 1"),
        ("compute_dtype", "float16", "compute_dtype='float16' must be one of"),
        ("backbone", "vgg", "backbone='vgg' must be one of"),
        ("mesh_operator", "gcn", "mesh_operator='gcn' must be one of"),
        ("landmark_head", "argmax", "landmark_head='argmax' must be one of"),
    ],
)
def test_sizes_that_make_no_network_are_refused(field, value, message):
    with pytest.raises(ValueError, match=f"model.{message}"):
        ModelConfig(**{field: value})


def test_another_image_than_mobrecons_is_refused_to_its_backbone():
    with pytest.raises(ValueError, match="image_size=64 must be 128"):
        ModelConfig(backbone="densestack", image_size=64)


def test_blocks_are_not_computed_again_where_there_are_none():
    with pytest.raises(ValueError, match="remat=True needs"):
        ModelConfig(backbone="densestack", remat=True)


def test_tables_that_do_not_fit_the_decoder_are_refused(hierarchy):
    with pytest.raises(ValueError, match=r"hierarchy have 4 levels .* channels=\(8, 8\)"):
        MeshDecoder(21, 8, (8, 8), hierarchy, rngs=nnx.Rngs(0))
    without = dataclasses.replace(hierarchy, roi_spirals=None)
    with pytest.raises(ValueError, match="no spirals inside the hand's regions"):
        MeshDecoder(21, 8, (8, 8, 8, 4), without, rngs=nnx.Rngs(0))
