"""A trained network as a LiteRT (.tflite) file for one crop, by way of StableHLO.

Needs the extra "litert", which exists for Linux alone. The converter's interface is not
documented, hence the pinned version; what it writes must be compared with JAX.
"""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jax import export
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.check import CropOutputs, RunCrops, predict_outputs, write_checked
from m3dhmr_jax.export.trained import Trained
from m3dhmr_jax.runtime.precision import single_precision

# Any: compiled modules, whose contents type checkers do not see.
converter: Any = importlib.import_module("litert_converter.converter_api_ext")
ir: Any = importlib.import_module("litert_converter.mlir.ir")
passmanager: Any = importlib.import_module("litert_converter.mlir.passmanager")


def export_litert(trained: Trained, out: Path, half: bool) -> None:
    """Writes the network, checks it and says how far it is from JAX.

    Raises:
        UserError: if `half`, or the file does not compute what JAX does.
        DiskFullError: if the disk is full.
    """
    if half:
        raise UserError(
            f"--half has no effect on {out.name}: LiteRT's converter stores every constant as "
            "float32; leave it out"
        )
    content = litert_of(trained)
    with write_checked(out, trained, load_litert, half=False) as path:
        path.write_bytes(content)


@single_precision()
def litert_of(trained: Trained) -> bytes:
    """The content of the file: one crop (1, s, s, 3), uint8, to the fields of CropOutputs."""
    network = trained.network

    def outputs_of(crops: UInt8[Array, "1 s s 3"]) -> tuple[Float[Array, "1 p d"], ...]:
        arrays = network.params, network.stats
        vertices_m, joints_m, landmarks_01 = predict_outputs(
            network.eval_graphdef, *arrays, crops, trained.hand.joint_regressor
        )
        return vertices_m, joints_m, landmarks_01 * network.image_size

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
            input_names=["crops"],
            output_names=list(CropOutputs._fields),
        )
        config = converter.ConvertToTFLConfig()
        converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
        return bytes(converter.export_flatbuffer_to_bytes(module.operation))


def load_litert(path: Path) -> RunCrops:
    """Runs a file on the CPU, crop by crop."""
    step = Interpreter(model_path=str(path)).get_signature_runner()

    def run(crops: UInt8[np.ndarray, "b s s 3"]) -> CropOutputs:
        rows = [step(crops=crop[None]) for crop in crops]
        names = CropOutputs._fields
        return CropOutputs(*(np.concatenate([row[name] for row in rows]) for name in names))

    return run
