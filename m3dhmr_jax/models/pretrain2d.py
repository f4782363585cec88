"""2D pre-training: the first half of the image encoder with two heads of its own.

The paper pre-trains the first stack and the first layer of the second stack with heatmaps and
landmarks, and does not state where these are predicted. Here heatmaps are predicted from the output
of the first hourglass and landmarks from the input of the second, so that the layers between the
two (remap and merge) are trained as well.

Axes: b batch, s crop side.
"""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.heads import create_landmark_head
from m3dhmr_jax.models.network import ModelConfig
from m3dhmr_jax.models.resnet import FirstHalf
from m3dhmr_jax.types import N_JOINTS, LandmarkPrediction


class Pretrain2D(nnx.Module):
    """The first half of the network that `config` describes, with the same parameter names.

    Raises:
        UserError: if the backbone is not the stacked ResNet.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        if config.backbone != "resnet":
            raise UserError(
                f"model.backbone={config.backbone!r} has no 2D pre-training: only the paper's "
                "stacked ResNet, model.backbone='resnet', has one"
            )
        dtype = jnp.dtype(config.compute_dtype)
        self.dtype = dtype
        self.backbone = FirstHalf(
            config.blocks, config.width, remat=config.remat, dtype=dtype, rngs=rngs
        )
        conv = functools.partial(nnx.Conv, config.width, N_JOINTS, (1, 1), dtype=dtype, rngs=rngs)
        # Heatmaps are mostly empty: starting from blank ones beats starting from noise.
        self.heatmap_head = conv(kernel_init=nnx.initializers.normal(0.01))
        self.map_head = conv()
        cells = (config.image_size // FirstHalf.MAP_STRIDE) ** 2
        # Not named `landmark_head`, as in the complete network: that one reads other maps, and
        # `init_from` copies parameters by name.
        self.pretrain_landmark_head = create_landmark_head(
            config.landmark_head, cells, dtype=dtype, rngs=rngs
        )

    def __call__(self, image: Float[Array, "b s s 3"]) -> LandmarkPrediction:
        top, merged = self.backbone.features(image.astype(self.dtype))
        heatmaps = self.heatmap_head(top).astype(jnp.float32)
        return LandmarkPrediction(heatmaps, self.pretrain_landmark_head(self.map_head(merged)))
