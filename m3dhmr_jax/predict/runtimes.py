"""The programs that can run networks, by name. Each is imported when it is used.

A runtime turns a network, or the detector's two, into functions from arrays to arrays.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.extras import require_extra
from m3dhmr_jax.export.onnx_runtimes import RunModel, onnxruntime_function, openvino_function
from m3dhmr_jax.predict.networks import CropNetwork, DetectorNetworks

JAX = "jax"


@runtime_checkable
class Runtime(Protocol):
    """What runs networks."""

    def load_network(self, path: Path) -> CropNetwork:
        """The network of a run's newest valid checkpoint, or of a weights file.

        Raises:
            UserError: if there is no checkpoint or no config next to it, or it is corrupted or of
                another hand.
        """
        ...

    def load_detector(self, weights: Path) -> DetectorNetworks:
        """The networks of the hand detector from converted weights.

        Raises:
            UserError: if these are missing, corrupted or others.
        """
        ...


class JaxRuntime:
    """Compiles networks when they first run."""

    def load_network(self, path: Path) -> CropNetwork:
        from m3dhmr_jax.predict.jax_networks import load_network

        return load_network(path)

    def load_detector(self, weights: Path) -> DetectorNetworks:
        from m3dhmr_jax.predict.detector_weights import load_detector_weights
        from m3dhmr_jax.predict.jax_networks import JaxDetector

        return JaxDetector(load_detector_weights(weights))


class OnnxRuntime(NamedTuple):
    """Writes networks as ONNX models when they are first used, and finds them again later."""

    start: Callable[[bytes], RunModel]
    package: str
    # The extra that brings it.
    extra: str

    def check_installed(self) -> None:
        """Raises UserError if a package is missing."""
        require_extra(self.extra, "onnx", self.package)

    def load_network(self, path: Path) -> CropNetwork:
        self.check_installed()
        from m3dhmr_jax.predict.exported_networks import load_network

        return load_network(path, self.start)

    def load_detector(self, weights: Path) -> DetectorNetworks:
        self.check_installed()
        from m3dhmr_jax.predict.exported_networks import load_detector

        return load_detector(weights, self.start)


RUNTIMES: dict[str, Runtime] = {
    JAX: JaxRuntime(),
    "onnxruntime": OnnxRuntime(onnxruntime_function, "onnxruntime", "export"),
    "openvino": OnnxRuntime(
        functools.partial(openvino_function, precision="f32"), "openvino", "openvino"
    ),
    "openvino-bf16": OnnxRuntime(
        functools.partial(openvino_function, precision="bf16"), "openvino", "openvino"
    ),
}


def find_runtime(name: str) -> Runtime:
    """The runtime of this name.

    Raises:
        UserError: if there is none.
    """
    if name not in RUNTIMES:
        raise UserError(
            f"runtime={name!r} must be one of {', '.join(RUNTIMES)}: no other program runs networks"
        )
    return RUNTIMES[name]
