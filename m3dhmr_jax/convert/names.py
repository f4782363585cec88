"""Names and layouts of our parameters in other implementations' files.

The rules map our names to theirs, which ensures that our network is filled completely and that
every unused tensor in a file is unused for a known reason.
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
    # Both stacks are filled from the same ResNet.
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
    (r"/stem/block/", "/pre_layer.1/"),
    (r"/stem/space_to_depth/", "/thrink/"),
    (r"/remap/", "/stack1_remap/"),
    (r"/merge/", "/thrink2/"),
    (r"/encoding_conv/", "/mid_proj.0/"),
    (r"/landmark_map_conv/", "/reduce.0/"),
    (
        r"/stack(\d)/down/(\d)/layers/0/blocks/(\d)/",
        lambda found: f"/dense_stack{found[1]}.dense{int(found[2]) + 1}.conv{int(found[3]) + 1}/",
    ),
    (
        r"/stack(\d)/down/(\d)/layers/1/",
        lambda found: f"/dense_stack{found[1]}.senet{int(found[2]) + 1}/",
    ),
    (
        r"/stack(\d)/bottom/(\d)/blocks/(\d)/",
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
    (r"^landmark_head/hidden(\d)/", lambda found: f"backbone.uv_reg.{int(found[1]) - 1}.0/"),
    (r"^landmark_head/out/", "backbone.uv_reg.2.0/"),
    (r"^decoder/lifting_matrix$", "decoder3d.upsample"),
    (r"^decoder/layers/(\d)/", r"decoder3d.de_layer.\1.conv/"),
    (r"^decoder/head/", "decoder3d.head/"),
    (r"^(decoder3d.*)/depthwise$", r"\1.spatial_layer.weight"),
    (r"^(decoder3d.*)/pointwise$", r"\1.channel_layer.weight"),
    (r"^(decoder3d.*)/(?=kernel|bias)", r"\1.layer/"),
)


def their_name(name: str, rules: Rules) -> str:
    """The name in their file of our parameter or statistic `name`; all rules apply in order."""
    for pattern, theirs in (*rules, *LEAVES):
        name = re.sub(pattern, theirs, name)
    return name.replace("/", ".")


def to_our_layout(
    theirs: Shaped[np.ndarray, "..."], name: str, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "..."]:
    """Their array in the layout of our parameter `name`, which has this shape.

    The result has another shape if the array does not fit.
    """
    match name.rsplit("/", 1)[-1], theirs.ndim:
        case "kernel", 4:
            return theirs.transpose(2, 3, 1, 0)
        case "depthwise", 4:  # A spiral, stored row by row as if it were a square kernel.
            return theirs.reshape(len(theirs), -1).T
        case "kernel" | "pointwise", 2:
            kernel = theirs.T
            # Their spiral convolution is one dense layer: spiral position first, then channel.
            fits = len(shape) == 3 and kernel.shape == (shape[0] * shape[1], shape[2])
            return kernel.reshape(shape) if fits else kernel
    return theirs
