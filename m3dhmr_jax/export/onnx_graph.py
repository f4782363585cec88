"""An ONNX graph under construction: its nodes and constants, and the model that they become.

Values are known by their names. Images are (b, c, h, w), meshes (b, v, c).
Axes: b batch, h w image, i j kernel, c d channels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from jaxtyping import Float
from onnx import TensorProto, helper, numpy_helper

from m3dhmr_jax.export import SMALLEST_HALF

# Read by every runtime of the last years; nothing newer is needed.
OPSET, IR_VERSION = 17, 8


class ImageInput(NamedTuple):
    """The input of a network: RGB images, uint8, (batch, side_px, side_px, 3)."""

    name: str
    side_px: int


class Graph:
    """Nodes and constants in the order in which they are written.

    Args:
        half: store large constants as float16, cast to float32 where they are used. Runtimes do
            that once, when they load the file.
    """

    def __init__(self, *, half: bool = False):
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str | np.ndarray | np.generic, **attributes: Any) -> str:
        """Adds a node whose inputs are values or constants; returns the name of its output."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    def constant(self, value: np.ndarray | np.generic) -> str:
        """Adds a constant; returns its name."""
        value, name = np.asarray(value, order="C"), f"constant_{len(self._constants)}"
        is_halved = self._half and value.dtype == np.float32 and value.size >= SMALLEST_HALF
        stored = value.astype(np.float16) if is_halved else value
        self._constants.append(numpy_helper.from_array(stored, name))
        return self("Cast", name, to=TensorProto.FLOAT) if is_halved else name

    def image(self, name: str) -> str:
        """An input's pixels as float32, (b, 3, h, w), 0 to 255."""
        return self("Transpose", self("Cast", name, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])

    def conv(
        self,
        x: str,
        kernel: Float[np.ndarray, "i j c d"],
        bias: Float[np.ndarray, " d"],
        *,
        stride: int = 1,
        padding: tuple[int, int],
        groups: int = 1,
    ) -> str:
        """A convolution with zero padding, as many pixels (before, after) along both axes."""
        return self(
            "Conv",
            x,
            kernel.transpose(3, 2, 0, 1),
            bias,
            kernel_shape=list(kernel.shape[:2]),
            strides=[stride] * 2,
            pads=[padding[0]] * 2 + [padding[1]] * 2,
            group=groups,
        )

    def linear(
        self, x: str, kernel: Float[np.ndarray, "c d"], bias: Float[np.ndarray, " d"]
    ) -> str:
        return self("Add", self("MatMul", x, kernel), bias)

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis, -1 takes what is left."""
        return self("Reshape", x, np.array(shape, np.int64))

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self("Unsqueeze", x, np.array(axes, np.int64))

    def sum(self, x: str, axis: int) -> str:
        return self("ReduceSum", x, np.array([axis], np.int64), keepdims=0)

    def clip(self, x: str, low: float, high: float) -> str:
        return self("Clip", x, np.float32(low), np.float32(high))

    def upsample_2x(self, x: str, **attributes: str) -> str:
        """Doubles height and width; the attributes are those of Resize."""
        return self("Resize", x, "", np.array([1, 1, 2, 2], np.float32), **attributes)

    def model(
        self,
        name: str,
        image: ImageInput,
        outputs: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """The checked model, for batches of any size.

        Args:
            outputs: value and shape without the batch axis of each output, float32.
        """
        for output, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [output]))
        side = image.side_px
        graph = helper.make_graph(
            self._nodes,
            name,
            [_info(image.name, TensorProto.UINT8, (side, side, 3))],
            [_info(each, TensorProto.FLOAT, shape) for each, (_, shape) in outputs.items()],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="m3dhmr_jax",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model


def _info(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])
