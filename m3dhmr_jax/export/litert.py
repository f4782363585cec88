"""A trained network as a LiteRT (.tflite) file for one crop, by way of StableHLO.

Needs the extra "litert", which exists for Linux alone. The converter's interface is not
documented, hence the pinned version; what it writes must be compared with JAX.
"""

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import predict_crops
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import MESH_UNIT_M

INPUTS, OUTPUTS = ["crops"], ["vertices_m", "joints_m", "landmarks_px"]


@single_precision()
def litert_of(network: Network, hand: HandModel) -> bytes:
    """The content of the file: one crop (1, s, s, 3), uint8, to OUTPUTS, as those of ONNX files.

    Raises:
        UserError: if the extra "litert" is not installed.
    """
    try:
        from litert_converter import converter_api_ext as converter
        from litert_converter.mlir import ir, passmanager
    except ImportError as error:
        raise UserError(
            f"a .tflite file needs the converter of LiteRT, which runs on Linux ({error}): "
            'pip install "m3dhmr_jax[litert]"'
        ) from error

    def outputs_of(crops: UInt8[Array, "1 s s 3"]) -> tuple[Float[Array, "1 p d"], ...]:
        prediction = predict_crops(network.eval_graphdef, network.params, network.stats, crops)
        vertices_m = jnp.asarray(prediction.verts) * MESH_UNIT_M
        joints_m = jnp.einsum("nv,bvc->bnc", hand.joint_regressor, vertices_m)
        return vertices_m, joints_m, jnp.asarray(prediction.landmarks_01) * network.image_size

    s = network.image_size
    crops = jax.ShapeDtypeStruct((1, s, s, 3), jnp.uint8)
    exported = export.export(jax.jit(outputs_of), platforms=["cpu"])(crops)
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = ir.Module.parse(exported.mlir_module())
        converter.set_signature(
            module.operation,
            signature_name="serving_default",
            input_names=INPUTS,
            output_names=OUTPUTS,
        )
        config = converter.ConvertToTFLConfig()
        converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
        return bytes(converter.export_flatbuffer_to_bytes(module.operation))
