"""M3DHMR: a crop of a right hand in, its mesh and its landmarks out.

Axes: b batch, s crop side, n = 21 landmarks, v vertices.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.mesh.hierarchy import MeshHierarchy
from m3dhmr_jax.models.decoder import MESH_OPERATORS, MeshDecoder
from m3dhmr_jax.models.densestack import DenseStack, clip
from m3dhmr_jax.models.layers import sample_at
from m3dhmr_jax.models.resnet import StackedResNet
from m3dhmr_jax.types import N_JOINTS, Prediction

COMPUTE_TYPES = ("float32", "bfloat16")
BACKBONES = ("resnet", "densestack")
LANDMARK_READERS = ("mlp", "clipped_mlp", "soft_argmax")
DENSESTACK_IMAGE_SIZE = 128


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network; the defaults are the paper's M3DHMR-ResNet18."""

    image_size: int = 128
    backbone: str = "resnet"  # One of BACKBONES.
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # Residual blocks per ResNet stage.
    width: int = 64  # Channels of the first stage or convolution; the others are multiples of it.
    encoding: int = 256  # Channels of F^e.
    channels: tuple[int, ...] = (256, 128, 64, 32)  # Of the decoder's layers, coarse to fine.
    mesh_operator: str = "dsc"  # The decoder's convolution; one of MESH_OPERATORS.
    kernels: int = 8  # K of the dynamic spiral convolution.
    spiral_length: int = 9
    roi: bool = True  # Whether the head looks at its vertex's region of the hand.
    roi_length: int = 27
    roi_dilation: int = 2
    landmark_head: str = "mlp"  # How a landmark is read from its map; one of LANDMARK_READERS.
    compute_dtype: str = "float32"
    remat: bool = False  # Whether training computes residual blocks twice, to save memory.

    def __post_init__(self):
        if self.image_size % 32 or self.image_size <= 0:
            raise ValueError(
                f"model.image_size={self.image_size} must be a positive multiple of 32: "
                "the encoder halves the image five times"
            )
        if self.backbone == "densestack" and self.image_size != DENSESTACK_IMAGE_SIZE:
            raise ValueError(
                f"model.image_size={self.image_size} must be {DENSESTACK_IMAGE_SIZE} with "
                "model.backbone='densestack': MobRecon reads landmarks from maps of 16 by 16 cells"
            )
        if self.backbone == "densestack" and self.remat:
            raise ValueError(
                "model.remat=True needs model.backbone='resnet': it is about residual blocks"
            )
        if len(self.blocks) != 4:
            raise ValueError(
                f"model.blocks={self.blocks} must have 4 entries: "
                "the encoding is read where the fourth stage leaves a 32nd of the image"
            )
        if len(self.channels) != 4:
            raise ValueError(
                f"model.channels={self.channels} must have 4 entries, coarse to fine: "
                "the mesh is refined four times"
            )
        for name in ("blocks", "width", "channels", "kernels", "spiral_length", "roi_length"):
            if not np.min(getattr(self, name)) >= 1:
                raise ValueError(
                    f"model.{name}={getattr(self, name)} must be at least 1: it counts parts"
                )
        if not self.encoding >= 2:
            raise ValueError(
                f"model.encoding={self.encoding} must be at least 2: "
                "the kernels' shares are computed from half of it"
            )
        for name, allowed in (
            ("backbone", BACKBONES),
            ("mesh_operator", MESH_OPERATORS),
            ("compute_dtype", COMPUTE_TYPES),
            ("landmark_head", LANDMARK_READERS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"model.{name}={getattr(self, name)!r} must be one of {allowed}")


class LandmarkMLP(nnx.Module):
    """One MLP, shared by all landmarks, reads each landmark's flattened map (as MobRecon does).

    A `clipped` one is MobRecon's own: without bias, and its hidden values end at 4.
    """

    def __init__(self, cells: int, clipped: bool = False, *, dtype: DTypeLike, rngs: nnx.Rngs):
        bias = not clipped
        self.activation = clip if clipped else nnx.relu
        self.hidden1 = nnx.Linear(cells, 128, use_bias=bias, dtype=dtype, rngs=rngs)
        self.hidden2 = nnx.Linear(128, 64, use_bias=bias, dtype=dtype, rngs=rngs)
        # The bias puts an untrained landmark into the middle of the crop.
        middle = nnx.initializers.constant(0.5)
        self.out = nnx.Linear(64, 2, use_bias=bias, bias_init=middle, rngs=rngs)

    def __call__(self, maps: Float[Array, "b h w n"]) -> Float[Array, "b n 2"]:
        flat = jnp.swapaxes(maps.reshape(maps.shape[0], -1, maps.shape[-1]), 1, 2)
        hidden = self.activation(self.hidden2(self.activation(self.hidden1(flat))))
        return self.out(hidden.astype(jnp.float32))


def soft_argmax(maps: Float[Array, "b h w n"]) -> Float[Array, "b n 2"]:
    """The mean place of each map's softmax, as a fraction of the crop: learned faster than an MLP.

    Axes: b batch, h w map, n landmarks.
    """
    _, h, w, _ = maps.shape
    share = jax.nn.softmax(maps.astype(jnp.float32), axis=(1, 2))
    x = jnp.einsum("bhwn,w->bn", share, (jnp.arange(w) + 0.5) / w, precision="highest")
    y = jnp.einsum("bhwn,h->bn", share, (jnp.arange(h) + 0.5) / h, precision="highest")
    return jnp.stack([x, y], axis=-1)


def landmark_head(
    config: ModelConfig, map_stride: int, rngs: nnx.Rngs
) -> Callable[[Float[Array, "b h w n"]], Float[Array, "b n 2"]]:
    """What `config.landmark_head` names; a cell of a map is `map_stride` pixels of the image."""
    if config.landmark_head == "soft_argmax":
        return soft_argmax
    cells = (config.image_size // map_stride) ** 2
    clipped = config.landmark_head == "clipped_mlp"
    return LandmarkMLP(cells, clipped, dtype=jnp.dtype(config.compute_dtype), rngs=rngs)


class M3DHMR(nnx.Module):
    """The network of the paper's figure 2; with MobRecon's parts, MobRecon."""

    def __init__(self, config: ModelConfig, hierarchy: MeshHierarchy, *, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.compute_dtype)
        self.dtype = dtype
        sizes = {"width": config.width, "encoding": config.encoding, "landmarks": N_JOINTS}
        self.backbone = (
            DenseStack(**sizes, dtype=dtype, rngs=rngs)
            if config.backbone == "densestack"
            else StackedResNet(config.blocks, **sizes, remat=config.remat, dtype=dtype, rngs=rngs)
        )
        self.landmarks = landmark_head(config, self.backbone.MAP_STRIDE, rngs)
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
        landmarks_01 = self.landmarks(maps)
        pose_features = sample_at(encoding, landmarks_01)  # F^p, eq. 1.
        verts = self.decoder(pose_features)
        return Prediction(verts.astype(jnp.float32), landmarks_01)
