import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from m3dhmr_jax.checkpoints.weights import flatten, names_of
from m3dhmr_jax.models.network import ModelConfig
from m3dhmr_jax.models.pretrain2d import Pretrain2D

SMALL = ModelConfig(image_size=64, blocks=(1, 1, 1, 1), width=4)
PRETRAINED = ("backbone/stem", "backbone/stack1", "backbone/remap", "backbone/merge")


@pytest.fixture(scope="module")
def network():
    model = Pretrain2D(SMALL, rngs=nnx.Rngs(0))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


@pytest.fixture(scope="module")
def answer(network):
    graphdef, _, stats = network
    image = jax.random.normal(jax.random.key(0), (3, 64, 64, 3))
    return jax.jit(lambda params: nnx.merge(graphdef, params, stats)(image))


def test_it_answers_heatmaps_of_a_quarter_of_the_image_and_landmarks(network, answer):
    prediction = answer(network[1])
    assert prediction.heatmaps.shape == (3, 16, 16, 21)
    assert prediction.landmarks_01.shape == (3, 21, 2)
    assert prediction.heatmaps.dtype == prediction.landmarks_01.dtype == jnp.float32


def test_it_shares_the_names_and_shapes_of_the_first_half_and_no_others(network, tiny_network):
    for own, whole in zip(network[1:], (tiny_network.params, tiny_network.stats), strict=True):
        shapes = {name: leaf.shape for name, leaf in flatten(whole).items()}
        first_half = {name: s for name, s in shapes.items() if name.startswith(PRETRAINED)}
        assert first_half
        shared = {name: leaf.shape for name, leaf in flatten(own).items() if name in shapes}
        assert shared == first_half


def reached(grads):
    return {name for name, grad in flatten(grads).items() if abs(grad).max() > 0}


def test_heatmaps_teach_the_first_hourglass_and_landmarks_the_merge_as_well(network, answer):
    params = network[1]
    names = set(names_of(params))

    @jax.jit
    def slopes(params):
        sums, back = jax.vjp(lambda p: jax.tree.map(lambda x: jnp.sum(x**2), answer(p)), params)
        one, none = jnp.ones_like(sums.landmarks_01), jnp.zeros_like(sums.landmarks_01)
        return [
            back(sums._replace(heatmaps=h, landmarks_01=u))[0]
            for h, u in ((one, none), (none, one))
        ]

    by_heatmaps, by_landmarks = map(reached, slopes(params))
    late = {n for n in names if n.startswith(("backbone/remap", "backbone/merge", "map_head"))}
    reader = {n for n in names if n.startswith("landmark_head")}
    assert by_heatmaps == names - late - reader
    assert by_landmarks == {n for n in names if not n.startswith("heatmap_head")}


@pytest.mark.parametrize("reader", ["mlp", "soft_argmax"])
def test_landmarks_are_read_as_in_the_main_network(reader):
    config = ModelConfig(image_size=64, width=4, landmark_head=reader, compute_dtype="bfloat16")
    model = nnx.eval_shape(lambda: Pretrain2D(config, rngs=nnx.Rngs(0)))
    parts = {name.split("/")[0] for name in names_of(nnx.to_pure_dict(nnx.state(model, nnx.Param)))}
    assert ("landmark_head" in parts) == (reader == "mlp")
    assert not parts & {"landmarks", "decoder"}  # The main network's own.


def test_the_densestack_is_refused():
    with pytest.raises(ValueError, match=r"model\.backbone='densestack' has no 2D pre-training"):
        Pretrain2D(ModelConfig(backbone="densestack"), rngs=nnx.Rngs(0))
