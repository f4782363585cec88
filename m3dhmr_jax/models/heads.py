"""Landmark heads: from one map per landmark, or from all features, to locations L^p in the crop.

Axes: b batch, h w map, n landmarks, c channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.models.densestack import relu4
from m3dhmr_jax.types import N_JOINTS

LANDMARK_HEADS = ("mlp", "clipped_mlp", "soft_argmax", "dense")
LandmarkHead = Callable[[Float[Array, "b h w c"]], Float[Array, "b n 2"]]


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


class LandmarkDense(nnx.Module):
    """One MLP from all cells and channels to all landmarks.

    With few cells and rich features, as of a backbone that has seen hands before, it learns much
    faster than a map for each landmark.
    """

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(features, 128, dtype=dtype, rngs=rngs)
        # Untrained landmarks start at the centre of the crop.
        centre, small = nnx.initializers.constant(0.5), nnx.initializers.normal(1e-3)
        self.out = nnx.Linear(128, 2 * N_JOINTS, kernel_init=small, bias_init=centre, rngs=rngs)

    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b n 2"]:
        hidden = nnx.relu(self.hidden(features.reshape(features.shape[0], -1)))
        return self.out(hidden.astype(jnp.float32)).reshape(-1, N_JOINTS, 2)


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
    name: str, cells: int, channels: int = N_JOINTS, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> LandmarkHead:
    """The head called `name`, one of LANDMARK_HEADS, for maps of `cells` cells.

    All but "dense" take one map per landmark.
    """
    match name:
        case "soft_argmax":
            return soft_argmax
        case "dense":
            return LandmarkDense(cells * channels, dtype=dtype, rngs=rngs)
    return LandmarkMLP(cells, clipped=name == "clipped_mlp", dtype=dtype, rngs=rngs)
