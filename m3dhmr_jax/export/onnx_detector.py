"""The two networks of the hand detector as ONNX models, with the layers of models/hand_detector.py.

Both take crops: `images`, uint8, RGB, (batch, side, side, 3), as of `predict.crops.crop`, black
outside the image. Outputs are named after the fields of `PalmCandidates` and `HandLandmarks`.
The networks are Google's, licensed under Apache-2.0: who passes the files on adds the licence,
m3dhmr_jax/predict/apache-2.0.txt.

Axes: h w image, i j kernel, c d channels.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float

from m3dhmr_jax.export.onnx_graph import Graph, ImageInput
from m3dhmr_jax.models.hand_detector import BOTTLENECK_STRIDES, PALM_BLOCKS
from m3dhmr_jax.models.hand_detector_outputs import LANDMARK_IMAGE_PX, PALM_GRIDS, PALM_IMAGE_PX
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.types import N_JOINTS, FloatArray

IMAGES = "images"
METADATA = {"origin": "MediaPipe Hands, full; Google; Apache-2.0", "pixels": "RGB"}
# The names of the files.
PALMS, LANDMARKS = "palms.onnx", "landmarks.onnx"
Weights = Sequence[FloatArray]
NextWeight = Callable[[], Float[np.ndarray, "..."]]


def palm_model(weights: Weights, *, half: bool = False) -> onnx.ModelProto:
    """`models.hand_detector.detect_palms` of `DetectorWeights.palms`.

    Input: `images`, uint8, (batch, 192, 192, 3).

    Outputs, float32, one row for each candidate: 24 x 24 cells with 2 candidates each, row by row,
    then 12 x 12 cells with 6 each (JSON in the metadata, `grids`):
        offsets_px (batch, 2016, 18): (x, y) of the centre of the palm's box and its (width,
            height), then 7 points (x, y): wrist, bases of index, middle, ring and little finger,
            two of the thumb. In pixels of the input; centre and points are relative to the centre
            of the cell, which for the first is (4, 4), counted from the input's edge.
        logits (batch, 2016): their sigmoid is the probability of a palm.

    `half`: store large weights as float16.
    """
    graph, take = Graph(half=half), _float32(weights).__next__
    x = _prelu(graph, _conv(graph, _image_01(graph), take(), take(), 2), take)
    levels = []
    for level in range(5):
        for block in range(PALM_BLOCKS if level else PALM_BLOCKS - 1):
            x = _palm_block(graph, x, take, stride=2 if level and block == 0 else 1)
        levels.append(x)
    logits, offsets = [], []
    for skip in (levels[3], levels[2]):
        x = graph.upsample_2x(x, mode="linear", coordinate_transformation_mode="half_pixel")
        x = graph("Add", _prelu(graph, _conv(graph, x, take(), take()), take), skip)
        x = _palm_block(graph, _palm_block(graph, x, take), take)
        for candidates, shape in ((logits, (0, -1)), (offsets, (0, -1, 18))):
            cells = graph("Transpose", _conv(graph, x, take(), take()), perm=[0, 2, 3, 1])
            candidates.insert(0, graph.reshape(cells, *shape))
    n = sum(cells**2 * candidates for cells, candidates in PALM_GRIDS)
    return graph.model(
        "palms",
        ImageInput(IMAGES, PALM_IMAGE_PX),
        {
            "offsets_px": (graph("Concat", *offsets, axis=1), (n, 18)),
            "logits": (graph("Concat", *logits, axis=1), (n,)),
        },
        METADATA | {"grids": json.dumps(PALM_GRIDS)},
    )


def landmark_model(weights: Weights, *, half: bool = False) -> onnx.ModelProto:
    """`models.hand_detector.find_landmarks` of `DetectorWeights.landmarks`.

    Input: `images`, uint8, (batch, 224, 224, 3): a hand, upright, that fills about half of it.

    Outputs, float32, in FreiHAND order (wrist; thumb, index, middle, ring, little, each from palm
    to tip):
        landmarks_px (batch, 21, 3): (x, y) in pixels of the input, counted from its edge (subtract
            0.5 where pixels have their centres on integers), and a relative depth.
        joints_m (batch, 21, 3): metres about the hand's centre; x right, y down, z forward.
        presence (batch,): probability of a hand.
        right_probability (batch,): probability that it is a right one.

    `half`: store large weights as float16.
    """
    graph, take = Graph(half=half), _float32(weights).__next__
    x = _relu6(graph, _conv(graph, _image_01(graph), take(), take(), 2))
    x = _conv(graph, _relu6(graph, _conv(graph, x, take(), take())), take(), take())
    for stride in BOTTLENECK_STRIDES:
        x = _bottleneck(graph, x, take, stride)
    x = _relu6(graph, _conv(graph, x, take(), take()))
    x = _relu6(graph, _conv(graph, x, take(), take()))
    features = graph("Flatten", graph("GlobalAveragePool", x))
    right, presence, landmarks, joints = (graph.linear(features, take(), take()) for _ in range(4))
    return graph.model(
        "landmarks",
        ImageInput(IMAGES, LANDMARK_IMAGE_PX),
        {
            "landmarks_px": (graph.reshape(landmarks, 0, N_JOINTS, 3), (N_JOINTS, 3)),
            "joints_m": (graph.reshape(joints, 0, N_JOINTS, 3), (N_JOINTS, 3)),
            "presence": (graph.reshape(graph("Sigmoid", presence), -1), ()),
            "right_probability": (graph.reshape(graph("Sigmoid", right), -1), ()),
        },
        METADATA,
    )


def write_detector(folder: Path, palms: Weights, landmarks: Weights, *, half: bool = False) -> None:
    """Writes the networks of `DetectorWeights` as PALMS and LANDMARKS into a folder.

    The published weights are float16, so files with `half` compute exactly the same.

    Raises:
        DiskFullError: if the disk is full.
    """
    models = {
        PALMS: palm_model(palms, half=half),
        LANDMARKS: landmark_model(landmarks, half=half),
    }
    for name, model in models.items():
        with write_atomic(folder / name) as partial:
            partial.write_bytes(model.SerializeToString())


def _float32(weights: Weights) -> Iterator[np.ndarray]:
    return (np.asarray(x, np.float32) for x in weights)


def _image_01(graph: Graph) -> str:
    return graph("Div", graph.image(IMAGES), np.float32(255))


def _palm_block(graph: Graph, x: str, take: NextWeight, stride: int = 1) -> str:
    depthwise, depthwise_bias, pointwise, bias = (take() for _ in range(4))
    y = _conv(graph, x, depthwise, depthwise_bias, stride)
    y = _conv(graph, y, pointwise, bias)
    if stride == 2:
        x = graph("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    c, d = pointwise.shape
    if c < d:
        x = graph("Pad", x, np.array([0, 0, 0, 0, 0, d - c, 0, 0], np.int64))
    return _prelu(graph, graph("Add", y, x), take)


def _bottleneck(graph: Graph, x: str, take: NextWeight, stride: int) -> str:
    expansion, expansion_bias, depthwise, depthwise_bias, projection, bias = (
        take() for _ in range(6)
    )
    y = _relu6(graph, _conv(graph, x, expansion, expansion_bias))
    y = _relu6(graph, _conv(graph, y, depthwise, depthwise_bias, stride))
    y = _conv(graph, y, projection, bias)
    has_shortcut = stride == 1 and len(expansion) == len(bias)
    return graph("Add", x, y) if has_shortcut else y


def _conv(
    graph: Graph,
    x: str,
    kernel: Float[np.ndarray, "..."],
    bias: Float[np.ndarray, " d"],
    stride: int = 1,
) -> str:
    """Kernels are (i, i, c, d), depthwise (i, i, c), or (c, d) for one pixel.

    TensorFlow's SAME padding, for sides that the stride divides.
    """
    groups = len(bias) if kernel.ndim == 3 else 1
    kernel = {2: kernel[None, None], 3: kernel[:, :, None], 4: kernel}[kernel.ndim]
    total = max(len(kernel) - stride, 0)
    padding = total // 2, total - total // 2
    return graph.conv(x, kernel, bias, stride=stride, padding=padding, groups=groups)


def _prelu(graph: Graph, x: str, take: NextWeight) -> str:
    return graph("PRelu", x, take()[:, None, None])


def _relu6(graph: Graph, x: str) -> str:
    return graph.clip(x, 0.0, 6.0)
