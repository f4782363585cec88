"""Functions of images from ONNX models, on the CPU, by onnxruntime and OpenVINO.

They keep as many threads busy as JAX does. Axes: b batch, s image side.
"""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

# From images to the outputs under their names; any number of images but none, from any thread.
RunModel = Callable[[UInt8[np.ndarray, "b s s 3"]], Mapping[str, Float[np.ndarray, "b ..."]]]


def onnxruntime_function(model: bytes) -> RunModel:
    """The model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    # Threads that wait in a loop take the cores of everything else that runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (images_name,) = (each.name for each in session.get_inputs())
    names = [each.name for each in session.get_outputs()]

    def run(images: UInt8[np.ndarray, "b s s 3"]) -> Mapping[str, np.ndarray]:
        outputs: Any = session.run(names, {images_name: images})
        return dict(zip(names, outputs, strict=True))

    return run


def openvino_function(model: bytes, precision: str) -> RunModel:
    """The model in OpenVINO.

    Args:
        precision: "f32" or "bf16". OpenVINO's own default depends on the processor.
    """
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": _threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Several processes would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(model), "CPU", options)
    names = [output.get_any_name() for output in compiled.outputs]
    one_at_a_time = threading.Lock()  # Else OpenVINO says that it is busy.

    def run(images: UInt8[np.ndarray, "b s s 3"]) -> Mapping[str, np.ndarray]:
        with one_at_a_time:
            outputs: Any = compiled(images)
        return {name: outputs[name] for name in names}

    return run


def _threads() -> int:
    """The processors that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Not on macOS and Windows.
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
