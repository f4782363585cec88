"""The ONNX form of every layer of the network for inference.

Images are (b, c, h, w), meshes (b, v, c). BatchNorm is folded into the layer before it.

Axes: b batch, h w image, c d channels, n landmarks, v u vertices, s spiral, k kernels.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from m3dhmr_jax.export.onnx_graph import Graph
from m3dhmr_jax.models import densestack, mobilenet, resnet, spiral_conv
from m3dhmr_jax.models.decoder import MeshDecoder
from m3dhmr_jax.models.heads import LandmarkDense, LandmarkHead, LandmarkMLP, soft_argmax
from m3dhmr_jax.models.layers import ConvNorm, DepthwiseConv, LinearNorm, PointwiseConv


@functools.singledispatch
def write(layer: Any, graph: Graph, *x: Any) -> Any:
    """Adds a layer to the graph; returns the names of its outputs.

    Mesh layers also take their spirals.

    Raises:
        NotImplementedError: if there is no form for a layer of this type.
    """
    raise NotImplementedError(
        f"{type(layer).__name__} has no ONNX form: register one in {__name__}"
    )


# ---- Convolutions and dense layers.


@write.register
def _(layer: nnx.Sequential, graph: Graph, x: str) -> str:
    for part in layer.layers:
        x = write(part, graph, x)
    return x


@write.register
def _(layer: nnx.Conv, graph: Graph, x: str) -> str:
    kernel = _float32(layer.kernel)
    bias = np.zeros(kernel.shape[-1], np.float32) if layer.bias is None else _float32(layer.bias)
    return _conv(graph, x, kernel, bias, _stride(layer))


@write.register
def _(layer: nnx.Linear, graph: Graph, x: str) -> str:
    kernel = _float32(layer.kernel)
    if layer.bias is None:
        return graph("MatMul", x, kernel)
    return graph.linear(x, kernel, _float32(layer.bias))


@write.register
def _(layer: ConvNorm, graph: Graph, x: str) -> str:
    return _conv(graph, x, *_folded(layer.conv.kernel, layer.norm), _stride(layer.conv))


@write.register
def _(layer: densestack.SpaceToDepthConv, graph: Graph, x: str) -> str:
    """The same as a 2×2 convolution with stride 2."""
    kernel, bias = _folded(layer.conv.kernel, layer.norm)
    blocks = kernel.reshape(-1, 2, 2, len(bias)).transpose(1, 2, 0, 3)
    return _conv(graph, x, blocks, bias, 2)


@write.register
def _(layer: densestack.DepthwiseNorm, graph: Graph, x: str) -> str:
    kernel, bias = _folded(layer.conv.kernel, layer.norm)
    return _conv(graph, x, kernel, bias, groups=len(bias))


@write.register
def _(layer: PointwiseConv, graph: Graph, x: str) -> str:
    kernel, bias = (_float32(each) for each in (layer.kernel, layer.bias))
    return _conv(graph, x, kernel[None, None], bias)


@write.register
def _(layer: DepthwiseConv, graph: Graph, x: str) -> str:
    kernel = _float32(layer.kernel)
    c = kernel.shape[-1]
    bias = np.zeros(c, np.float32) if layer.bias is None else _float32(layer.bias)
    return _conv(graph, x, kernel, bias, layer.stride, groups=c)


@write.register
def _(layer: LinearNorm, graph: Graph, x: str) -> str:
    return graph.linear(x, *_folded(layer.linear.kernel, layer.norm))


def _float32(x: Any) -> np.ndarray:
    return np.asarray(x[...] if isinstance(x, nnx.Variable) else x, np.float32)


def _folded(kernel: Any, norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a layer without bias and the BatchNorm after it."""
    scale, bias, mean, var, kernel = (
        np.asarray(x[...], np.float64) for x in (norm.scale, norm.bias, norm.mean, norm.var, kernel)
    )
    scale = scale / np.sqrt(var + norm.epsilon)
    return (kernel * scale).astype(np.float32), (bias - mean * scale).astype(np.float32)


def _stride(layer: nnx.Conv) -> int:
    strides: Any = layer.strides  # One for both axes, or the same one twice.
    return strides if isinstance(strides, int) else strides[0]


def _conv(
    graph: Graph,
    x: str,
    kernel: Float[np.ndarray, "i i c d"],
    bias: Float[np.ndarray, " d"],
    stride: int = 1,
    groups: int = 1,
) -> str:
    """Padded as `ConvNorm` is."""
    pad = (len(kernel) - 1) // 2
    return graph.conv(x, kernel, bias, stride=stride, padding=(pad, pad), groups=groups)


def _relu(graph: Graph, x: str) -> str:
    return graph("Relu", x)


def _relu4(graph: Graph, x: str) -> str:
    return graph.clip(x, 0.0, 4.0)


def _relu6(graph: Graph, x: str) -> str:
    return graph.clip(x, 0.0, 6.0)


def _upsample_nearest_2x(graph: Graph, x: str) -> str:
    return graph.upsample_2x(
        x,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _upsample_bilinear_2x(graph: Graph, x: str) -> str:
    return graph.upsample_2x(x, mode="linear", coordinate_transformation_mode="align_corners")


# ---- The stacked ResNet.


@write.register
def _(layer: resnet.Stem, graph: Graph, x: str) -> str:
    x = _relu(graph, write(layer.conv1, graph, x))
    return graph("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


@write.register
def _(layer: resnet.BasicBlock, graph: Graph, x: str) -> str:
    shortcut = x if layer.downsample is None else write(layer.downsample, graph, x)
    y = write(layer.conv2, graph, _relu(graph, write(layer.conv1, graph, x)))
    return _relu(graph, graph("Add", y, shortcut))


@write.register
def _(layer: resnet.Hourglass, graph: Graph, x: str) -> tuple[str, str]:
    skips = []
    for stage in layer.stages:
        x = write(stage, graph, x)
        skips.append(x)
    bottom = skips.pop()
    for lateral, smooth in zip(layer.lateral, layer.smooth, strict=True):
        doubled = _upsample_nearest_2x(graph, write(lateral, graph, x))
        x = _relu(graph, graph("Add", doubled, skips.pop()))
        x = _relu(graph, write(smooth, graph, x))
    return x, bottom


@write.register
def _(layer: resnet.StackedResNet, graph: Graph, x: str) -> tuple[str, str]:
    stem = write(layer.stem, graph, x)
    top, _ = write(layer.stack1, graph, stem)
    remapped = _relu(graph, write(layer.remap, graph, top))
    both = graph("Concat", stem, remapped, axis=1)
    merged = _relu(graph, write(layer.merge, graph, both))
    top, bottom = write(layer.stack2, graph, merged)
    return write(layer.encoding_conv, graph, bottom), write(layer.landmark_map_conv, graph, top)


# ---- DenseStack.


@write.register
def _(layer: densestack.SeparableConvBlock, graph: Graph, x: str) -> str:
    y = x
    for part in layer.depthwise:
        y = _relu(graph, write(part, graph, y))
    y = _relu(graph, write(layer.pointwise, graph, y))
    c, d = layer.pointwise.conv.kernel.shape[-2:]
    return graph("Add", x, y) if c == d else y


@write.register
def _(layer: densestack.SqueezeExcite, graph: Graph, x: str) -> str:
    means = graph("Flatten", graph("GlobalAveragePool", x))
    hidden = _relu4(graph, write(layer.fc1, graph, means))
    weights = graph("Sigmoid", write(layer.fc2, graph, hidden))
    return graph("Mul", x, graph.unsqueeze(weights, 2, 3))


@write.register
def _(layer: densestack.DenseBlock, graph: Graph, x: str) -> str:
    for block in layer.blocks:
        x = graph("Concat", x, write(block, graph, x), axis=1)
    return x


@write.register
def _(layer: densestack.DenseHourglass, graph: Graph, x: str) -> tuple[str, str]:
    skips = []
    for stage in layer.down:
        y = write(stage, graph, x)
        x = graph("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
        skips.append(x)
    for block in layer.bottom:
        c = block.blocks[0].pointwise.conv.kernel.shape[-2]
        start, end, axis = (np.array([i], np.int64) for i in (c, 2**31 - 1, 1))
        x = graph("Slice", write(block, graph, x), start, end, axis)
    bottom = x
    first, second, last = layer.up
    for stage, skip in ((first, skips[1]), (second, skips[0])):
        x = graph("Add", _upsample_nearest_2x(graph, write(stage, graph, x)), skip)
    return write(last, graph, x), bottom


@write.register
def _(layer: densestack.DenseStem, graph: Graph, x: str) -> str:
    x = write(layer.block, graph, _relu(graph, write(layer.conv1, graph, x)))
    return _relu(graph, write(layer.space_to_depth, graph, x))


@write.register
def _(layer: densestack.DenseStack, graph: Graph, x: str) -> tuple[str, str]:
    stem = write(layer.stem, graph, x)
    top, _ = write(layer.stack1, graph, stem)
    first = _relu(graph, write(layer.remap, graph, _upsample_bilinear_2x(graph, top)))
    both = graph("Concat", first, stem, axis=1)
    merged = _relu(graph, write(layer.merge, graph, both))
    top, bottom = write(layer.stack2, graph, merged)
    return write(layer.encoding_conv, graph, bottom), write(layer.landmark_map_conv, graph, top)


# ---- MobileNet.


@write.register
def _(layer: mobilenet.InvertedBottleneck, graph: Graph, x: str) -> str:
    y = x if layer.expand is None else _relu6(graph, write(layer.expand, graph, x))
    y = write(layer.project, graph, _relu6(graph, write(layer.depthwise, graph, y)))
    return graph("Add", x, y) if layer.has_shortcut else y


@write.register
def _(layer: mobilenet.MobileNet, graph: Graph, x: str) -> tuple[str, str]:
    image_01 = graph("Mul", graph("Add", x, np.float32(1)), np.float32(0.5))
    x = _relu6(graph, write(layer.stem, graph, image_01))
    for block in layer.blocks:
        x = write(block, graph, x)
    kernel, bias = _folded(layer.encoding_conv.linear.kernel, layer.encoding_conv.norm)
    encoding = _conv(graph, x, kernel[None, None], bias)
    return encoding, encoding


# ---- Landmarks.


def write_landmark_head(head: LandmarkHead, graph: Graph, maps: str, side: int) -> str:
    """(b, n, 2) from maps (b, n, side, side), or from features (b, c, side, side)."""
    if isinstance(head, LandmarkDense):  # Its rows are cells, each with all channels.
        rows = graph.reshape(graph("Transpose", maps, perm=[0, 2, 3, 1]), 0, -1)
        found = write(head.out, graph, _relu(graph, write(head.hidden, graph, rows)))
        return graph.reshape(found, 0, -1, 2)
    flat = graph.reshape(maps, 0, 0, -1)
    return _soft_argmax(graph, flat, side) if head is soft_argmax else write(head, graph, flat)


def _soft_argmax(graph: Graph, flat: str, side: int) -> str:
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    locations = np.stack([np.tile(centres, side), np.repeat(centres, side)], axis=-1)
    return graph("MatMul", graph("Softmax", flat, axis=-1), locations)


@write.register
def _(layer: LandmarkMLP, graph: Graph, flat: str) -> str:
    activations: dict[Any, Callable[[Graph, str], str]]
    activations = {nnx.relu: _relu, densestack.relu4: _relu4}
    x = flat
    for hidden in (layer.hidden1, layer.hidden2):
        x = activations[layer.activation](graph, write(hidden, graph, x))
    return write(layer.out, graph, x)


def write_sample_at(graph: Graph, features: str, landmarks_01: str, side: int) -> str:
    """`models.layers.sample_at` of features (b, c, side, side): (b, n, c)."""
    inside = graph("Mul", graph.clip(landmarks_01, 0.0, 1.0), np.float32(side - 1))
    cells = np.arange(side, dtype=np.float32)
    distance = graph("Abs", graph("Sub", graph.unsqueeze(inside, 3), cells))  # (b, n, 2, side)
    near = _relu(graph, graph("Sub", np.float32(1), distance))
    x, y = (graph("Gather", near, np.array(i, np.int64), axis=2) for i in range(2))
    weights = graph("Mul", graph.unsqueeze(y, 3), graph.unsqueeze(x, 2))
    rows = graph("Transpose", graph.reshape(features, 0, 0, -1), perm=[0, 2, 1])
    return graph("MatMul", graph.reshape(weights, 0, 0, -1), rows)


# ---- The mesh.


@write.register
def _(decoder: MeshDecoder, graph: Graph, pose_features: str) -> str:
    x = graph("MatMul", _float32(decoder.lifting_matrix), pose_features)
    for layer, level in zip(decoder.layers, decoder.hierarchy.levels[::-1], strict=True):
        x = _upsample_mesh(graph, x, level.up_indices, level.up_weights)
        x = _relu(graph, write(layer, graph, x, level.spirals))
    return write(decoder.head, graph, x, decoder.head_spirals.indices)


def _upsample_mesh(
    graph: Graph, x: str, indices: Int[np.ndarray, "u 3"], weights: Float[np.ndarray, "u 3"]
) -> str:
    first, second, third = (
        graph("Mul", _gather(graph, x, indices[:, i]), _float32(weights[:, i, None]))
        for i in range(3)
    )
    return graph("Add", graph("Add", first, second), third)


def _gather(graph: Graph, x: str, vertices: Int[np.ndarray, "..."]) -> str:
    return graph("Gather", x, vertices.astype(np.int64), axis=1)


@write.register
def _(layer: spiral_conv.SpiralConv, graph: Graph, x: str, spirals: Int[np.ndarray, "v s"]) -> str:
    kernel = _float32(layer.kernel)
    length, c, d = kernel.shape
    terms = graph("MatMul", x, kernel.transpose(1, 0, 2).reshape(c, length * d))
    rows = spirals * length + np.arange(length)
    gathered = _gather(graph, graph.reshape(terms, 0, -1, d), rows)
    return graph("Add", graph.sum(gathered, 2), _float32(layer.bias))


@write.register
def _(
    layer: spiral_conv.SeparableSpiralConv, graph: Graph, x: str, spirals: Int[np.ndarray, "v s"]
) -> str:
    filtered = _along_spirals(graph, x, spirals, _float32(layer.depthwise))
    return graph("MatMul", filtered, _float32(layer.pointwise))


def _along_spirals(
    graph: Graph, x: str, spirals: Int[np.ndarray, "v s"], kernel: str | np.ndarray
) -> str:
    """Depthwise: the kernel is (s, c), or one (b, v, s, c) for each vertex."""
    return graph.sum(graph("Mul", _gather(graph, x, spirals), kernel), 2)


@write.register
def _(
    layer: spiral_conv.DynamicSpiralConv, graph: Graph, x: str, spirals: Int[np.ndarray, "v s"]
) -> str:
    hidden = _relu(graph, write(layer.attn_hidden, graph, x))
    attention = graph("Softmax", write(layer.attn_logits, graph, hidden), axis=-1)
    depthwise, pointwise = _float32(layer.depthwise), _float32(layer.pointwise)
    k, s, c = depthwise.shape
    d = pointwise.shape[-1]
    mixed = graph("MatMul", attention, depthwise.reshape(k, s * c))
    filtered = _along_spirals(graph, x, spirals, graph.reshape(mixed, 0, 0, s, c))
    bias = graph("MatMul", attention, _float32(layer.depthwise_bias))
    outputs = graph(
        "MatMul",
        graph("Add", filtered, bias),
        pointwise.transpose(1, 0, 2).reshape(c, k * d),
    )
    outputs = graph.reshape(outputs, 0, 0, k, d)
    y = graph.sum(graph("Mul", graph.unsqueeze(attention, 3), outputs), 2)
    return graph("Add", y, graph("MatMul", attention, _float32(layer.pointwise_bias)))
