"""What our parameters are called in other people's networks, and how those store them.

The names go from ours to theirs: so it is certain that a network of ours is filled completely, and
what is left in a file is left for a reason.
"""

import re
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

LEAVES: Rules = (
    (r"/(kernel|scale)$", ".weight"),
    (r"/bias$", ".bias"),
    (r"/(mean|var)$", r".running_\1"),
)
RESNET: Rules = (
    (r"^backbone/stem/", ""),
    # Both stacks are the same ResNet.
    (
        r"^backbone/stack[12]/stages/(\d)/layers/(\d+)/",
        lambda found: f"layer{int(found[1]) + 1}.{found[2]}.",
    ),
    (r"(conv\d)/conv", r"\1"),
    (r"conv(\d)/norm", r"bn\1"),
    (r"downsample/conv", "downsample.0"),
    (r"downsample/norm", "downsample.1"),
)
MOBRECON: Rules = (
    (r"/stem/conv1/", "/pre_layer.0/"),
    (r"/stem/unit/", "/pre_layer.1/"),
    (r"/stem/squeeze/", "/thrink/"),
    (r"/remap/", "/stack1_remap/"),
    (r"/merge/", "/thrink2/"),
    (r"/encode/", "/mid_proj.0/"),
    (r"/maps/", "/reduce.0/"),
    (
        r"/stack(\d)/down/(\d)/layers/0/units/(\d)/",
        lambda found: f"/dense_stack{found[1]}.dense{int(found[2]) + 1}.conv{int(found[3]) + 1}/",
    ),
    (
        r"/stack(\d)/down/(\d)/layers/1/",
        lambda found: f"/dense_stack{found[1]}.senet{int(found[2]) + 1}/",
    ),
    (
        r"/stack(\d)/bottom/(\d)/units/(\d)/",
        lambda found: f"/dense_stack{found[1]}.dense{int(found[2]) + 4}.conv{int(found[3]) + 1}/",
    ),
    (
        r"/stack(\d)/up/(\d)/layers/([01])/",
        lambda found: f"/dense_stack{found[1]}.thrink{int(found[2]) + 1}.{found[3]}/",
    ),
    (
        r"/stack(\d)/up/(\d)/layers/2/",
        lambda found: f"/dense_stack{found[1]}.senet{int(found[2]) + 4}/",
    ),
    (r"/depthwise/(\d)/", r"/conv3x3.\1/"),
    (r"/pointwise/", "/conv1x1/"),
    (r"/(conv|linear)/(?=\w+$)", ".0/"),
    (r"/norm/(?=\w+$)", ".1/"),
    (r"^landmarks/hidden(\d)/", lambda found: f"backbone.uv_reg.{int(found[1]) - 1}.0/"),
    (r"^landmarks/out/", "backbone.uv_reg.2.0/"),
    (r"^decoder/lift$", "decoder3d.upsample"),
    (r"^decoder/convs/(\d)/", r"decoder3d.de_layer.\1.conv/"),
    (r"^decoder/head/", "decoder3d.head/"),
    (r"^(decoder3d.*)/depthwise$", r"\1.spatial_layer.weight"),
    (r"^(decoder3d.*)/pointwise$", r"\1.channel_layer.weight"),
    (r"^(decoder3d.*)/(?=kernel|bias)", r"\1.layer/"),
)


def their_name(name: str, rules: Rules) -> str:
    """What the parameter or statistic `name` of ours is called by the rules, all one by one."""
    for pattern, theirs in (*rules, *LEAVES):
        name = re.sub(pattern, theirs, name)
    return name.replace("/", ".")


def arranged(
    theirs: Shaped[np.ndarray, "..."], name: str, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    """Their array in the layout that `name`, of this shape, has here.

    Where the numbers do not suffice for the shape, the answer has another one.
    """
    match name.rsplit("/", 1)[-1], theirs.ndim:
        case "kernel", 4:
            return theirs.transpose(2, 3, 1, 0)
        case "depthwise", 4:  # Of a spiral, laid out in rows as if it were a square.
            return theirs.reshape(len(theirs), -1).T
        case "kernel" | "pointwise", 2:
            across = theirs.T
            # A spiral convolution there is one dense layer, place in the spiral before channel.
            fits = len(shape) == 3 and across.shape == (shape[0] * shape[1], shape[2])
            return across.reshape(shape) if fits else across
    return theirs
