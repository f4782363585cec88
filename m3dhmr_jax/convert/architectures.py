"""Tells from the names in a file whose network it holds, and what that is in ours."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from m3dhmr_jax.convert.names import MOBRECON, RESNET, Rules

UNDERSTOOD = (
    "understood are torchvision's ResNet-18 and ResNet-34, and MobRecon with its DenseStack, with "
    "its decoder (depth-separable or plain spiral convolutions) or without one"
)
RESNET_DEPTHS: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
RESNET_SIGN = "layer1.0.conv1.weight"
DENSESTACK_SIGN = "dense_stack1.dense1.conv1.conv3x3.0.0.weight"
DECODER_SIGNS = {
    "dsconv": "decoder3d.de_layer.0.conv.spatial_layer.weight",
    "spiral": "decoder3d.de_layer.0.conv.layer.weight",
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Another network as a part of one of ours, or all of it."""

    title: str
    prefix: str  # Before each of its names in the file.
    model: Mapping[str, Any]  # Fields of the ModelConfig of ours.
    covers: str  # Matches the start of those names of ours that it has a counterpart of.
    rules: Rules  # From those to its own.
    why_left: Mapping[str, str]  # By a pattern of its names: why ours has no counterpart.

    @property
    def whole(self) -> bool:
        """Whether all of our network is in it."""
        return not self.covers


def recognise(names: Collection[str]) -> Architecture:
    """The network among tensors of these names.

    Raises:
        ValueError: if there is none, another one, or more than one.
    """
    signs = [
        (name.removesuffix(sign), sign)
        for name in names
        for sign in (RESNET_SIGN, DENSESTACK_SIGN)
        if name == sign or name.endswith(f".{sign}")
    ]
    if not signs:
        some = ", ".join(sorted(names)[:3]) or "none"
        raise ValueError(f"its tensors ({some}, ...) are of no network known here; {UNDERSTOOD}")
    if len(signs) > 1:
        places = ", ".join(f"{prefix}*" for prefix, _ in signs)
        raise ValueError(
            f"it holds {len(signs)} networks ({places}): choose one, as with --prefix={signs[0][0]}"
        )
    prefix, sign = signs[0]
    return (_resnet if sign == RESNET_SIGN else _mobrecon)(prefix, names)


def _resnet(prefix: str, names: Collection[str]) -> Architecture:
    blocks = tuple(
        sum(
            bool(re.fullmatch(rf"{re.escape(prefix)}layer{i}\.\d+\.conv1\.weight", name))
            for name in names
        )
        for i in range(1, 5)
    )
    bottleneck = f"{prefix}layer1.0.conv3.weight" in names
    if blocks not in RESNET_DEPTHS or bottleneck:
        kind = "bottleneck blocks" if bottleneck else "blocks"
        raise ValueError(f"it is a ResNet with stages of {blocks} {kind}; {UNDERSTOOD}")
    return Architecture(
        title=f"ResNet-{RESNET_DEPTHS[blocks]}",
        prefix=prefix,
        model={"blocks": blocks},
        covers="backbone/(stem|stack[12]/stages)/",
        rules=RESNET,
        why_left={r"fc\.": "the classifier of another task"},
    )


def _mobrecon(prefix: str, names: Collection[str]) -> Architecture:
    alone = re.search(r"(^|\.)backbone\.$", prefix) is None  # A file of the backbone's own.
    prefix = prefix if alone else prefix.removesuffix("backbone.")
    decoder = sorted(name for name in names if name.startswith(f"{prefix}decoder3d."))
    operators = [name for name, sign in DECODER_SIGNS.items() if f"{prefix}{sign}" in decoder]
    if decoder and len(operators) != 1:
        raise ValueError(
            f"it is MobRecon's DenseStack under another decoder ({decoder[0]}, ...); {UNDERSTOOD}"
        )
    model = {"backbone": "densestack", "roi": False, "landmark_head": "clipped_mlp"}
    operator = operators[0] if decoder else "dsconv"
    return Architecture(
        title=f"MobRecon-DenseStack ({operator})" if decoder else "DenseStack without a decoder",
        prefix=prefix,
        model=model | {"mesh_operator": operator},
        covers="" if decoder else "backbone/|landmarks/",
        rules=(*MOBRECON, (r"^backbone[./]", "")) if alone else MOBRECON,
        why_left={
            r"(backbone\.)?dense_stack1\.(dense4|dense5|senet3)\.": "layers MobRecon never calls"
        },
    )
