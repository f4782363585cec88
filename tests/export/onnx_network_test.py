import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from m3dhmr_jax.builders import create_network  # noqa: E402
from m3dhmr_jax.checkpoints.manager import digest  # noqa: E402
from m3dhmr_jax.export.onnx_graph import Graph  # noqa: E402
from m3dhmr_jax.export.onnx_layers import write  # noqa: E402
from m3dhmr_jax.export.onnx_network import CROPS, network_model  # noqa: E402
from m3dhmr_jax.hand import hand_id, load_builtin  # noqa: E402
from m3dhmr_jax.inference import predict  # noqa: E402
from m3dhmr_jax.models.decoder import MESH_OPERATORS  # noqa: E402
from m3dhmr_jax.models.heads import LANDMARK_HEADS  # noqa: E402
from m3dhmr_jax.models.network import BACKBONES  # noqa: E402
from m3dhmr_jax.types import MESH_UNIT_M  # noqa: E402
from tests.conftest import fill  # noqa: E402

# Rounding, over the largest value: random networks have meshes and landmarks of any size.
TOLERANCE = 1e-4
HALF_TOLERANCE = 5e-3
SYSTEMS = [
    (backbone, operator, head, roi)
    for backbone, operator, head, roi in itertools.product(
        BACKBONES, MESH_OPERATORS, LANDMARK_HEADS, (True, False)
    )
    if backbone != "mobilenet" or head == "dense"
]
# All parts, each once.
FEW = {
    ("resnet", "dsc", "soft_argmax", True),
    ("resnet", "spiral", "mlp", False),
    ("densestack", "dsconv", "clipped_mlp", False),
    ("mobilenet", "dsc", "dense", True),
}


@pytest.fixture(scope="module")
def make_network(tiny_config):
    def make(backbone="resnet", operator="dsc", head="soft_argmax", roi=True):
        changes = {
            "model.backbone": backbone,
            "model.mesh_operator": operator,
            "model.landmark_head": head,
            "model.roi": roi,
            "model.image_size": 128 if backbone == "densestack" else 64,
        }
        return fill(create_network(tiny_config(**changes), load_builtin(), abstract=True))

    return make


def crops_for(network, b):
    side = network.image_size
    coarse = np.random.default_rng(1).integers(0, 256, (b, 8, 8, 3), np.uint8)
    return coarse.repeat(side // 8, 1).repeat(side // 8, 2)


def outputs(model, crops):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {CROPS: crops}), strict=True))


def jax_outputs(network, crops):
    """Not compiled as a whole: networks share their operations."""
    image = jnp.asarray(crops, jnp.float32) / 255 * 2 - 1
    verts, landmarks_01 = predict(network.eval_graphdef, network.params, network.stats, image)
    verts_m = np.asarray(verts) * MESH_UNIT_M
    return {
        "vertices_m": verts_m,
        "joints_m": load_builtin().joint_regressor @ verts_m,
        "landmarks_px": np.asarray(landmarks_01) * network.image_size,
    }


def assert_close(got, want, tolerance):
    assert got.keys() == want.keys()
    for name, value in got.items():
        assert value.shape == want[name].shape
        error = np.abs(value - want[name]).max() / np.abs(want[name]).max()
        assert error < tolerance, (name, error)


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(
            system,
            id="-".join(map(str, system)),
            marks=[] if system in FEW else [pytest.mark.long],
        )
        for system in SYSTEMS
    ],
)
def test_every_network_equals_jax(make_network, system):
    network = make_network(*system)
    model, crops = network_model(network, load_builtin()), crops_for(network, 3)
    want = jax_outputs(network, crops)
    assert np.ptp(want["vertices_m"], axis=1).min() > 1e-3
    assert_close(outputs(model, crops), want, TOLERANCE)
    first = {name: value[:1] for name, value in want.items()}
    assert_close(outputs(model, crops[:1]), first, TOLERANCE)


@pytest.fixture(scope="module")
def model(tiny_network):
    return network_model(tiny_network, load_builtin(), config_json='{"a": 1}')


def test_the_model_passes_the_full_check(model):
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]


@pytest.mark.parametrize("backbone", ["resnet", pytest.param("densestack", marks=pytest.mark.long)])
def test_no_node_holds_the_batch_size(make_network, backbone):
    """The first axis of every value that depends on the crops has a name instead of a number."""
    model = network_model(make_network(backbone), load_builtin())
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        info.name: info.type.tensor_type.shape.dim
        for info in (*inferred.graph.value_info, *inferred.graph.output)
    }
    depends = {CROPS}
    for node in model.graph.node:
        if depends & set(node.input):
            depends |= set(node.output)
    assert len(depends) > 100
    for name in depends - {CROPS}:
        assert shapes[name][0].dim_param, name


def test_metadata(model, tiny_network):
    hand, metadata = load_builtin(), {x.key: x.value for x in model.metadata_props}
    arrays = {"params": tiny_network.params, "stats": tiny_network.stats}
    assert metadata["weights_sha256"] == digest(arrays)
    assert metadata["config"] == '{"a": 1}'
    assert metadata["hand"] == hand_id(hand)
    assert metadata["image_size"] == "64"
    assert metadata["unit"] == "metre"
    np.testing.assert_array_equal(json.loads(metadata["faces"]), hand.faces)
    assert "x right, y down" in metadata["frame"]
    assert "1.3 times" in metadata["crop"]


def test_half_stores_large_constants_in_half_the_size(model, tiny_network):
    half = network_model(tiny_network, load_builtin(), half=True)
    onnx.checker.check_model(half, full_check=True)

    def size(model, kind):
        return sum(x.ByteSize() for x in model.graph.initializer if x.data_type == kind)

    assert size(half, onnx.TensorProto.FLOAT16) > 10_000
    large = [
        x
        for x in half.graph.initializer
        if x.data_type == onnx.TensorProto.FLOAT and np.prod(x.dims) >= 1024
    ]
    assert not large
    assert half.ByteSize() < 0.9 * model.ByteSize()
    crops = crops_for(tiny_network, 3)
    exact, rounded = outputs(model, crops), outputs(half, crops)
    assert_close(rounded, exact, HALF_TOLERANCE)
    assert np.abs(rounded["vertices_m"] - exact["vertices_m"]).max() > 0


def test_compute_dtype_is_ignored(tiny_config, tiny_network, model):
    config = tiny_config(**{"model.compute_dtype": "bfloat16"})
    network = fill(create_network(config, load_builtin(), abstract=True))
    crops = crops_for(network, 1)
    same = outputs(network_model(network, load_builtin()), crops)
    assert_close(same, outputs(model, crops), 1e-9)


class Swish(nnx.Module):
    """A layer of the future."""


def test_a_layer_without_a_form_is_refused_by_name(tiny_network):
    with pytest.raises(NotImplementedError, match="Swish has no ONNX form"):
        write(nnx.Sequential(Swish()), Graph(), "x")
