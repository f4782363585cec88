import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from m3dhmr_jax.builders import create_network
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict
from m3dhmr_jax.models.fast.convolutions import IM2COL_TRANSPOSED, WINOGRAD, Convolution
from m3dhmr_jax.models.fast.folding import Folded, fold

pytestmark = pytest.mark.long

SYSTEMS = {
    "quickstart": {},
    "mlp": {"model.landmark_head": "mlp"},
    "deeper": {"model.blocks": (3, 4, 6, 3)},
    "spiral": {"model.mesh_operator": "spiral"},
    "dsconv without roi": {"model.mesh_operator": "dsconv", "model.roi": False},
    "densestack": {
        "model.backbone": "densestack",
        "model.image_size": 128,
        "model.landmark_head": "clipped_mlp",
    },
    "mobilenet": {"model.backbone": "mobilenet", "model.landmark_head": "dense"},
}
FULL_WIDTH = {"model.width": 64, "model.encoding": 256}


def as_trained(network, seed=0):
    """The network with random statistics and affine parameters: none is 0 or 1."""
    rng = np.random.default_rng(seed)

    def randomise(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        if name in ("mean", "bias"):
            return jnp.asarray(leaf + rng.normal(size=leaf.shape) * 0.2, leaf.dtype)
        return leaf

    params, stats = (jax.tree.map_with_path(randomise, x) for x in (network.params, network.stats))
    return network._replace(params=params, stats=stats)


def predictions(network, b):
    coarse = np.random.default_rng(1).normal(size=(b, 8, 8, 3))
    repeats = network.image_size // 8
    image = jnp.asarray(coarse.repeat(repeats, 1).repeat(repeats, 2), jnp.float32)
    graphdef, params = fold(network.eval_graphdef, network.params, network.stats)
    run = jax.jit(predict, static_argnums=0)
    plain = run(network.eval_graphdef, network.params, network.stats, image)
    return plain, run(graphdef, params, {}, image), (graphdef, params)


def max_error_mm(plain, fast):
    """The largest vertex error, with the mesh scaled to the size of a hand."""
    as_hand_mm = 100 / float(jnp.abs(plain.verts).max())
    return float(jnp.abs(plain.verts - fast.verts).max()) * as_hand_mm


@pytest.mark.parametrize("system", SYSTEMS)
def test_fold_preserves_predictions(tiny_config, system):
    network = as_trained(create_network(tiny_config(**SYSTEMS[system]), load_builtin()))
    plain, fast, _ = predictions(network, b=2)
    assert max_error_mm(plain, fast) < 0.1
    np.testing.assert_allclose(fast.landmarks_01, plain.landmarks_01, atol=1e-3)


def test_fold_preserves_predictions_at_full_width(tiny_config):
    network = as_trained(create_network(tiny_config(**FULL_WIDTH), load_builtin()))
    plain, fast, (graphdef, params) = predictions(network, b=1)
    assert max_error_mm(plain, fast) < 0.1
    np.testing.assert_allclose(fast.landmarks_01, plain.landmarks_01, atol=1e-3)
    used = {
        module.operation.algorithm
        for _, module in nnx.iter_modules(nnx.merge(graphdef, params))
        if isinstance(module, Folded) and isinstance(module.operation, Convolution)
    }
    if jax.default_backend() == "cpu":
        assert used >= {IM2COL_TRANSPOSED, WINOGRAD}


def test_fold_supports_bfloat16(tiny_config):
    """Folding may not cost more precision than bfloat16 itself does."""
    exact, _, _ = predictions(as_trained(create_network(tiny_config(), load_builtin())), b=2)
    config = tiny_config(**{"model.compute_dtype": "bfloat16"})
    plain, fast, _ = predictions(as_trained(create_network(config, load_builtin())), b=2)
    assert max_error_mm(exact, fast) < 3 * max_error_mm(exact, plain)
    assert fast.verts.dtype == jnp.float32


def test_fold_removes_every_normalisation(tiny_network):
    net = as_trained(tiny_network)
    graphdef, params = fold(net.eval_graphdef, net.params, net.stats)
    modules = [module for _, module in nnx.iter_modules(nnx.merge(graphdef, params))]
    assert not any(isinstance(module, nnx.BatchNorm | nnx.Conv) for module in modules)
    assert fold(net.eval_graphdef, net.params, net.stats)[0] == graphdef
