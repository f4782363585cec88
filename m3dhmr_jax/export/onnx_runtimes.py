"""Functions of images from ONNX models, on the CPU, by onnxruntime and OpenVINO.

They keep as many threads busy as JAX does. Axes: b batch, s image side.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

# From images to the outputs, in the model's order; any number of images but none, from any thread.
RunModel = Callable[[UInt8[np.ndarray, "b s s 3"]], Sequence[Float[np.ndarray, "b ..."]]]


def onnxruntime_function(model: bytes) -> RunModel:
    """The model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    # Threads that wait in a loop take the cores of everything else that runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (images_name,) = (each.name for each in session.get_inputs())

    def run(images: UInt8[np.ndarray, "b s s 3"]) -> Sequence[np.ndarray]:
        outputs: Any = session.run(None, {images_name: images})
        return outputs

    return run


def openvino_function(model: bytes, precision: str) -> RunModel:
    """The model in OpenVINO.

    Args:
        precision: "f32" or "bf16". OpenVINO's own default depends on the processor.
    """
    openvino = _import_openvino()
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": _threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Several processes would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    # A thread of its own: else OpenVINO says that it is busy when called from several, and it gives
    # the thread that compiles a stack for signals that is too small where AMX is used: the next
    # signal there would end the process.
    thread = ThreadPoolExecutor(1, "openvino")

    def compile_model() -> Any:
        core = openvino.Core()
        return core.compile_model(core.read_model(model), "CPU", options)

    compiled = thread.submit(compile_model).result()

    def run(images: UInt8[np.ndarray, "b s s 3"]) -> Sequence[np.ndarray]:
        return list(thread.submit(compiled, images).result().values())

    return run


def _import_openvino() -> Any:
    """OpenVINO without its telemetry.

    When it is imported, it reports that to Google Analytics, from a fork of this process, which
    JAX warns of; without the package for that it does not.
    """
    telemetry = "openvino_telemetry"
    was_imported = telemetry in sys.modules
    sys.modules.setdefault(telemetry, None)  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    finally:
        if not was_imported:
            del sys.modules[telemetry]
    return openvino


def _threads() -> int:
    """The processors that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Not on macOS and Windows.
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
