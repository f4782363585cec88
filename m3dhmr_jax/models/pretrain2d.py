"""The network of the 2D pre-training: the first half of the image side under two heads of its own.

As chosen here, each half of what is pre-trained answers for itself: heatmaps are read from the top
of the first hourglass, landmarks from what the merge hands to the second one. So merge and remap
learn as well, and what a landmark needs has to pass through them.

Axes: b batch, s crop side.
"""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from m3dhmr_jax.models.network import ModelConfig, landmark_head
from m3dhmr_jax.models.resnet import FirstStack
from m3dhmr_jax.types import N_JOINTS, LandmarkPrediction


class Pretrain2D(nnx.Module):
    """The first half of the network that `config` describes; its parts are named as there.

    Raises:
        ValueError: if its image side is not the ResNet's.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        if config.backbone != "resnet":
            raise ValueError(
                f"model.backbone={config.backbone!r} has no 2D pre-training: it is that of the "
                "paper's stacked ResNet, model.backbone='resnet'"
            )
        dtype = jnp.dtype(config.compute_dtype)
        self.dtype = dtype
        self.backbone = FirstStack(
            config.blocks, config.width, remat=config.remat, dtype=dtype, rngs=rngs
        )
        head = functools.partial(nnx.Conv, config.width, N_JOINTS, (1, 1), dtype=dtype, rngs=rngs)
        # Heatmaps are nearly empty: blank ones are a better start than noise.
        self.heatmap_head = head(kernel_init=nnx.initializers.normal(0.01))
        self.map_head = head()
        # Not named as the main network's reader, which reads maps of another layer.
        self.landmark_head = landmark_head(config, FirstStack.MAP_STRIDE, rngs)

    def __call__(self, image: Float[Array, "b s s 3"]) -> LandmarkPrediction:
        top, merged = self.backbone.first(image.astype(self.dtype))
        heatmaps = self.heatmap_head(top).astype(jnp.float32)
        return LandmarkPrediction(heatmaps, self.landmark_head(self.map_head(merged)))
