import sys

import jax
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.litert import litert_of
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict_crops
from m3dhmr_jax.types import MESH_UNIT_M


def test_litert_equals_jax(tiny_network):
    """The converter computed `sample_at` wrongly while it contracted two axes at once."""
    pytest.importorskip("litert_converter", reason='the extra "litert" is not installed')
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    network, size = tiny_network, tiny_network.image_size
    crops = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    content = litert_of(network, load_builtin())
    run = interpreter.Interpreter(model_content=content).get_signature_runner()
    want = jax.jit(predict_crops, static_argnums=0)(
        network.eval_graphdef, network.params, network.stats, crops
    )
    regressor = load_builtin().joint_regressor
    for crop, verts, landmarks_01 in zip(crops, *map(np.asarray, want), strict=True):
        got = run(crops=crop[None])
        vertices_m = verts * MESH_UNIT_M
        np.testing.assert_allclose(got["vertices_m"][0], vertices_m, atol=1e-5)
        np.testing.assert_allclose(got["joints_m"][0], regressor @ vertices_m, atol=1e-5)
        np.testing.assert_allclose(got["landmarks_px"][0], landmarks_01 * size, atol=1e-2)


def test_missing_extra_is_named(tiny_network, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_converter", None)
    with pytest.raises(UserError, match=r"m3dhmr_jax\[litert\]"):
        litert_of(tiny_network, load_builtin())
