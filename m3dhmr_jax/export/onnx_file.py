"""Writes a trained network to an ONNX file, and runs such files with onnxruntime."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from m3dhmr_jax.export.check import CropOutputs, RunCrops, write_checked
from m3dhmr_jax.export.onnx_network import network_model
from m3dhmr_jax.export.onnx_runtimes import onnxruntime_function
from m3dhmr_jax.export.programs import check_programs, write_programs
from m3dhmr_jax.export.trained import Trained


def export_onnx(trained: Trained, out: Path, half: bool) -> None:
    """Writes the network, checks it, says how far it is from JAX, and adds the programs.

    Raises:
        UserError: if the file does not compute what JAX does, or the folder has other files with
            names of the programs.
        NotImplementedError: if the network has a layer without an ONNX form.
        DiskFullError: if the disk is full.
    """
    check_programs(out.parent)
    network, hand, config_json = trained
    model = network_model(network, hand, config_json=config_json, half=half)
    with write_checked(out, trained, load_onnx, half=half) as path:
        path.write_bytes(model.SerializeToString())
    write_programs(out.parent)


def load_onnx(path: Path) -> RunCrops:
    """Runs a network's ONNX file on the CPU."""
    model = onnxruntime_function(path.read_bytes())

    def run(crops: UInt8[np.ndarray, "b s s 3"]) -> CropOutputs:
        return CropOutputs(*model(crops))

    return run
