"""Landmark heads: from one map per landmark to its location L^p in the crop.

Axes: b batch, h w map, n landmarks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.models.densestack import relu4

LANDMARK_HEADS = ("mlp", "clipped_mlp", "soft_argmax")
LandmarkHead = Callable[[Float[Array, "b h w n"]], Float[Array, "b n 2"]]


class LandmarkMLP(nnx.Module):
    """One MLP, shared by all landmarks, on each landmark's flattened map (as in MobRecon).

    The `clipped` MLP is MobRecon's own: without biases, its hidden activations clipped at 4.
    """

    def __init__(self, cells: int, clipped: bool = False, *, dtype: DTypeLike, rngs: nnx.Rngs):
        bias = not clipped
        self.activation = relu4 if clipped else nnx.relu
        self.hidden1 = nnx.Linear(cells, 128, use_bias=bias, dtype=dtype, rngs=rngs)
        self.hidden2 = nnx.Linear(128, 64, use_bias=bias, dtype=dtype, rngs=rngs)
        # Untrained landmarks start at the centre of the crop.
        centre = nnx.initializers.constant(0.5)
        self.out = nnx.Linear(64, 2, use_bias=bias, bias_init=centre, rngs=rngs)

    def __call__(self, maps: Float[Array, "b h w n"]) -> Float[Array, "b n 2"]:
        flat = jnp.swapaxes(maps.reshape(maps.shape[0], -1, maps.shape[-1]), 1, 2)
        hidden = self.activation(self.hidden2(self.activation(self.hidden1(flat))))
        return self.out(hidden.astype(jnp.float32))


def soft_argmax(maps: Float[Array, "b h w n"]) -> Float[Array, "b n 2"]:
    """Expected location under each map's softmax, as a fraction of the crop.

    It has no parameters, so it learns faster than an MLP.
    """
    _, h, w, _ = maps.shape
    weights = jax.nn.softmax(maps.astype(jnp.float32), axis=(1, 2))
    x = jnp.einsum("bhwn,w->bn", weights, (jnp.arange(w) + 0.5) / w, precision="highest")
    y = jnp.einsum("bhwn,h->bn", weights, (jnp.arange(h) + 0.5) / h, precision="highest")
    return jnp.stack([x, y], axis=-1)


def create_landmark_head(
    name: str, cells: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> LandmarkHead:
    """The head called `name`, one of LANDMARK_HEADS, for maps of `cells` cells."""
    if name == "soft_argmax":
        return soft_argmax
    return LandmarkMLP(cells, clipped=name == "clipped_mlp", dtype=dtype, rngs=rngs)
