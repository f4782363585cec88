"""Contents of published weight files: names, layouts, random values."""

import jax
import numpy as np

from m3dhmr_jax.checkpoints.weights import names_of
from m3dhmr_jax.convert.architectures import DECODER_KEYS, DENSESTACK_KEY, recognise
from m3dhmr_jax.convert.names import their_name

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def torchvision_resnet(blocks, bottleneck=False):
    """A ResNet with torchvision's names, with its classifier."""
    shapes = {"conv1.weight": (64, 3, 7, 7)} | _norm("bn1", 64)
    c = 64
    for stage, count in enumerate(blocks):
        d = 64 * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            shapes |= {f"{name}.conv1.weight": (d, c, 3, 3)} | _norm(f"{name}.bn1", d)
            shapes |= {f"{name}.conv2.weight": (d, d, 3, 3)} | _norm(f"{name}.bn2", d)
            if bottleneck:
                shapes |= {f"{name}.conv3.weight": (4 * d, d, 1, 1)}
            if c != d:
                shapes |= {f"{name}.downsample.0.weight": (d, c, 1, 1)}
                shapes |= _norm(f"{name}.downsample.1", d)
            c = d
    shapes |= {"fc.weight": (1000, 512), "fc.bias": (1000,)}
    return _filled(shapes)


def mobrecon(operator, trees_of):
    """A complete MobRecon with the names and layouts of our conversion rules.

    `trees_of` returns our abstract trees for an architecture.
    """
    architecture = recognise([f"backbone.{DENSESTACK_KEY}", DECODER_KEYS[operator]])
    shapes = {}
    for tree in trees_of(architecture):
        for name, leaf in zip(names_of(tree), jax.tree.leaves(tree), strict=True):
            shapes[their_name(name, architecture.rules)] = _their_shape(name, leaf.shape)
    unused = _norm("backbone.dense_stack1.dense4.conv1.conv1x1.1", 768)
    return _filled(shapes | unused)


def _norm(name, c):
    own = {f"{name}.{leaf}": (c,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return own | {f"{name}.num_batches_tracked": ()}


def _filled(shapes):
    rng = np.random.default_rng(0)
    return {
        name: np.array(7) if name.endswith("num_batches_tracked") else rng.random(shape, np.float32)
        for name, shape in shapes.items()
    }


def _their_shape(name, shape):
    match name.rsplit("/", 1)[-1], len(shape):
        case "kernel", 4:
            return shape[3], shape[2], shape[0], shape[1]
        case "kernel", 3:
            return shape[2], shape[0] * shape[1]
        case "depthwise", 2:
            return shape[1], 1, 3, 3
        case "kernel" | "pointwise", 2:
            return shape[::-1]
    return shape
