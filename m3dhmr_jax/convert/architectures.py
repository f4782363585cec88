"""Recognises the network in a file by its tensor names, and how it maps to ours."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from m3dhmr_jax.convert.names import MOBRECON, RESNET, Rules
from m3dhmr_jax.errors import UserError

SUPPORTED = (
    "supported are torchvision's ResNet-18 and ResNet-34, and MobRecon's DenseStack with or "
    "without its decoder (depth-separable or plain spiral convolutions)"
)
RESNET_DEPTHS: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
RESNET_KEY = "layer1.0.conv1.weight"
DENSESTACK_KEY = "dense_stack1.dense1.conv1.conv3x3.0.0.weight"
DECODER_KEYS = {
    "dsconv": "decoder3d.de_layer.0.conv.spatial_layer.weight",
    "spiral": "decoder3d.de_layer.0.conv.layer.weight",
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Another implementation's network as all or a part of ours."""

    title: str
    prefix: str  # Precedes its tensor names in the file.
    model: Mapping[str, Any]  # Fields of our ModelConfig.
    covers: str  # Pattern of our parameter names that have a counterpart in it.
    rules: Rules  # From our names to its names.
    unused_reasons: Mapping[str, str]  # Pattern of its names: why we have no counterpart.

    @property
    def complete(self) -> bool:
        """Whether it fills all of our network."""
        return not self.covers


def recognise(names: Collection[str]) -> Architecture:
    """The network whose tensors have these names.

    Raises:
        UserError: if there is none, an unsupported one, or more than one.
    """
    keys = [
        (name.removesuffix(key), key)
        for name in names
        for key in (RESNET_KEY, DENSESTACK_KEY)
        if name == key or name.endswith(f".{key}")
    ]
    if not keys:
        some = ", ".join(sorted(names)[:3]) or "none"
        raise UserError(f"its tensors ({some}, ...) belong to no supported network; {SUPPORTED}")
    if len(keys) > 1:
        prefixes = ", ".join(f"{prefix}*" for prefix, _ in keys)
        raise UserError(
            f"it holds {len(keys)} networks ({prefixes}): choose one, as with --prefix={keys[0][0]}"
        )
    prefix, key = keys[0]
    return (_resnet if key == RESNET_KEY else _mobrecon)(prefix, names)


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
        raise UserError(f"it is a ResNet with stages of {blocks} {kind}; {SUPPORTED}")
    return Architecture(
        title=f"ResNet-{RESNET_DEPTHS[blocks]}",
        prefix=prefix,
        model={"blocks": blocks},
        covers="backbone/(stem|stack[12]/stages)/",
        rules=RESNET,
        unused_reasons={r"fc\.": "ImageNet classifier, not needed"},
    )


def _mobrecon(prefix: str, names: Collection[str]) -> Architecture:
    alone = re.search(r"(^|\.)backbone\.$", prefix) is None  # A file with only the backbone.
    prefix = prefix if alone else prefix.removesuffix("backbone.")
    decoder = sorted(name for name in names if name.startswith(f"{prefix}decoder3d."))
    operators = [name for name, key in DECODER_KEYS.items() if f"{prefix}{key}" in decoder]
    if decoder and len(operators) != 1:
        raise UserError(
            f"it is MobRecon's DenseStack with another decoder ({decoder[0]}, ...); {SUPPORTED}"
        )
    model = {"backbone": "densestack", "roi": False, "landmark_head": "clipped_mlp"}
    operator = operators[0] if decoder else "dsconv"
    return Architecture(
        title=f"MobRecon-DenseStack ({operator if decoder else 'without decoder'})",
        prefix=prefix,
        model=model | {"mesh_operator": operator},
        covers="" if decoder else "backbone/|landmark_head/",
        rules=(*MOBRECON, (r"^backbone[./]", "")) if alone else MOBRECON,
        unused_reasons={
            r"(backbone\.)?dense_stack1\.(dense4|dense5|senet3)\.": "layers MobRecon never calls"
        },
    )
