"""M3DHMR (fig. 2): from a crop of a right hand to its mesh and its landmarks.

Axes: b batch, s crop side, n = 21 landmarks, v vertices.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy
from m3dhmr_jax.models.decoder import MESH_OPERATORS, MeshDecoder
from m3dhmr_jax.models.densestack import DenseStack
from m3dhmr_jax.models.heads import LANDMARK_HEADS, create_landmark_head
from m3dhmr_jax.models.layers import sample_at
from m3dhmr_jax.models.mobilenet import BLOCKS, MobileNet
from m3dhmr_jax.models.resnet import StackedResNet
from m3dhmr_jax.types import N_JOINTS, Prediction

COMPUTE_DTYPES = ("float32", "bfloat16")
BACKBONES = ("resnet", "densestack", "mobilenet")
DENSESTACK_IMAGE_SIZE = 128


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network; the defaults are the paper's M3DHMR-ResNet18.

    Raises:
        UserError: if a field is out of range or the fields contradict each other.
    """

    image_size: int = 128
    backbone: str = "resnet"  # One of BACKBONES.
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # Residual blocks per ResNet stage.
    width: int = 64  # Channels of the first stage or convolution; the others are multiples of it.
    frozen_blocks: int = 0  # Leading blocks of the MobileNet that training leaves as they are.
    encoding: int = 256  # Channels of F^e.
    channels: tuple[int, ...] = (256, 128, 64, 32)  # The decoder's widths, coarse to fine.
    mesh_operator: str = "dsc"  # The decoder's convolution; one of MESH_OPERATORS.
    kernels: int = 8  # K of the dynamic spiral convolution.
    spiral_length: int = 9
    roi: bool = True  # Whether the head is the ROI layer.
    roi_length: int = 27
    roi_dilation: int = 2
    landmark_head: str = "mlp"  # One of LANDMARK_HEADS.
    compute_dtype: str = "float32"  # One of COMPUTE_DTYPES; parameters are float32 either way.
    remat: bool = False  # Whether training recomputes residual blocks to save memory.

    def __post_init__(self):
        if self.image_size % 32 or self.image_size <= 0:
            raise UserError(
                f"model.image_size={self.image_size} must be a positive multiple of 32: "
                "the encoder halves the image five times"
            )
        if self.backbone == "densestack" and self.image_size != DENSESTACK_IMAGE_SIZE:
            raise UserError(
                f"model.image_size={self.image_size} must be {DENSESTACK_IMAGE_SIZE} with "
                "model.backbone='densestack': MobRecon's landmark maps have 16 by 16 cells"
            )
        if self.backbone != "resnet" and self.remat:
            raise UserError(
                "model.remat=True needs model.backbone='resnet': it recomputes residual blocks"
            )
        most = len(BLOCKS) if self.backbone == "mobilenet" else 0
        if not 0 <= self.frozen_blocks <= most:
            raise UserError(
                f"model.frozen_blocks={self.frozen_blocks} must lie in 0..{most} with "
                f"model.backbone={self.backbone!r}: only the {len(BLOCKS)} blocks of 'mobilenet' "
                "can be left as they are"
            )
        if self.backbone == "mobilenet" and self.landmark_head != "dense":
            raise UserError(
                f"model.landmark_head={self.landmark_head!r} must be 'dense' with "
                "model.backbone='mobilenet', which has no maps of landmarks"
            )
        if len(self.blocks) != 4:
            raise UserError(
                f"model.blocks={self.blocks} must have 4 entries: "
                "the encoding is the output of the fourth stage, at a 32nd of the image's side"
            )
        if len(self.channels) != 4:
            raise UserError(
                f"model.channels={self.channels} must have 4 entries, coarse to fine: "
                "the mesh is refined four times"
            )
        for name in (
            "blocks",
            "width",
            "channels",
            "kernels",
            "spiral_length",
            "roi_length",
            "roi_dilation",
        ):
            if not np.min(getattr(self, name)) >= 1:
                raise UserError(f"model.{name}={getattr(self, name)} must be at least 1")
        if not self.encoding >= 2:
            raise UserError(
                f"model.encoding={self.encoding} must be at least 2: "
                "the kernels' attention is computed from half of it"
            )
        for name, allowed in (
            ("backbone", BACKBONES),
            ("mesh_operator", tuple(MESH_OPERATORS)),
            ("compute_dtype", COMPUTE_DTYPES),
            ("landmark_head", LANDMARK_HEADS),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"model.{name}={getattr(self, name)!r} must be one of {allowed}")


class M3DHMR(nnx.Module):
    """The network of fig. 2; with MobRecon's backbone, decoder and heads it is MobRecon."""

    def __init__(self, config: ModelConfig, hierarchy: MeshHierarchy, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.compute_dtype)
        self.dtype = dtype
        sizes = {"width": config.width, "encoding": config.encoding, "landmarks": N_JOINTS}
        map_channels = N_JOINTS
        self.backbone: StackedResNet | DenseStack | MobileNet
        match config.backbone:
            case "densestack":
                self.backbone = DenseStack(**sizes, dtype=dtype, rngs=rngs)
            case "mobilenet":
                map_channels, frozen = config.encoding, config.frozen_blocks
                self.backbone = MobileNet(
                    config.encoding, frozen_blocks=frozen, dtype=dtype, rngs=rngs
                )
            case _:
                self.backbone = StackedResNet(
                    config.blocks, **sizes, remat=config.remat, dtype=dtype, rngs=rngs
                )
        cells = (config.image_size // self.backbone.MAP_STRIDE) ** 2
        self.landmark_head = create_landmark_head(
            config.landmark_head, cells, map_channels, dtype=dtype, rngs=rngs
        )
        self.decoder = MeshDecoder(
            N_JOINTS,
            config.encoding,
            config.channels,
            hierarchy,
            operator=config.mesh_operator,
            kernels=config.kernels,
            roi=config.roi,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, image: Float[Array, "b s s 3"]) -> Prediction:
        encoding, maps = self.backbone(image.astype(self.dtype))
        landmarks_01 = self.landmark_head(maps)
        pose_features = sample_at(encoding, landmarks_01)  # F^p = F^e(L^p), eq. 1.
        return Prediction(self.decoder(pose_features), landmarks_01)
