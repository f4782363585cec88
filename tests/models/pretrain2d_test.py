import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from m3dhmr_jax.checkpoints.weights import flatten, names_of
from m3dhmr_jax.errors import UserError
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
def forward(network):
    graphdef, _, stats = network
    image = jax.random.normal(jax.random.key(0), (3, 64, 64, 3))
    return jax.jit(lambda params: nnx.merge(graphdef, params, stats)(image))


def test_pretrain2d_predicts_heatmaps_and_landmarks(network, forward):
    prediction = forward(network[1])
    assert prediction.heatmaps.shape == (3, 16, 16, 21)
    assert prediction.landmarks_01.shape == (3, 21, 2)
    assert prediction.heatmaps.dtype == prediction.landmarks_01.dtype == jnp.float32


def test_pretrain2d_shares_the_first_half_of_the_network(network, tiny_network):
    for own, whole in zip(network[1:], (tiny_network.params, tiny_network.stats), strict=True):
        shapes = {name: leaf.shape for name, leaf in flatten(whole).items()}
        first_half = {name: s for name, s in shapes.items() if name.startswith(PRETRAINED)}
        assert first_half
        shared = {name: leaf.shape for name, leaf in flatten(own).items() if name in shapes}
        assert shared == first_half


def reached(grads):
    return {name for name, grad in flatten(grads).items() if abs(grad).max() > 0}


@pytest.mark.long
def test_pretrain2d_gradients_reach_the_intended_layers(network, forward):
    params = network[1]
    names = set(names_of(params))

    @jax.jit
    def grads_by_head(params):
        sums, vjp = jax.vjp(lambda p: jax.tree.map(lambda x: jnp.sum(x**2), forward(p)), params)
        one, none = jnp.ones_like(sums.landmarks_01), jnp.zeros_like(sums.landmarks_01)
        return [
            vjp(sums._replace(heatmaps=h, landmarks_01=u))[0] for h, u in ((one, none), (none, one))
        ]

    by_heatmaps, by_landmarks = map(reached, grads_by_head(params))
    late = {n for n in names if n.startswith(("backbone/remap", "backbone/merge", "map_head"))}
    head = {n for n in names if n.startswith("pretrain_landmark_head")}
    assert by_heatmaps == names - late - head
    assert by_landmarks == {n for n in names if not n.startswith("heatmap_head")}


@pytest.mark.parametrize("head", ["mlp", "soft_argmax"])
def test_pretrain2d_landmark_head_has_a_name_of_its_own(head):
    config = ModelConfig(image_size=64, width=4, landmark_head=head, compute_dtype="bfloat16")
    model = nnx.eval_shape(lambda: Pretrain2D(config, rngs=nnx.Rngs(0)))
    parts = {name.split("/")[0] for name in names_of(nnx.to_pure_dict(nnx.state(model, nnx.Param)))}
    assert ("pretrain_landmark_head" in parts) == (head == "mlp")
    assert not parts & {"landmark_head", "decoder"}  # Those of the complete network.


def test_pretrain2d_rejects_densestack():
    with pytest.raises(UserError, match="densestack"):
        Pretrain2D(ModelConfig(backbone="densestack"), rngs=nnx.Rngs(0))
