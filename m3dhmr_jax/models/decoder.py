"""The mesh decoder (right half of fig. 2): from features at the landmarks to a mesh.

Axes: b batch, n landmarks, v vertices, m vertices of the coarsest mesh, e encoding channels,
c channels of the finest mesh's features.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy
from m3dhmr_jax.models.gather import StaticIndices
from m3dhmr_jax.models.spiral_conv import (
    DynamicSpiralConv,
    SeparableSpiralConv,
    SpiralConv,
    upsample,
)

# The three rows of table 2.
MESH_OPERATORS: dict[str, Callable[..., nnx.Module]] = {
    "dsc": DynamicSpiralConv,
    "dsconv": SeparableSpiralConv,
    "spiral": SpiralConv,
}


class MeshDecoder(nnx.Module):
    """Lifts pose features to the coarsest mesh (eq. 2) and refines them level by level.

    With `roi` the head is the paper's ROI layer, a spiral convolution along the regions' dilated
    spirals. Without, it is a spiral convolution on the finest level, depth-separable if the other
    layers are (as in MobRecon). `kernels` is K of the dynamic spiral convolution.

    Raises:
        UserError: if the hierarchy does not have one level per entry of `channels`.
        ValueError: if `roi` and the hierarchy lacks the regions' spirals.
    """

    def __init__(
        self,
        landmarks: int,
        encoding: int,
        channels: tuple[int, ...],
        hierarchy: MeshHierarchy,
        *,
        operator: str = "dsc",
        kernels: int = 8,
        roi: bool = True,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if len(hierarchy.levels) != len(channels):
            raise UserError(
                f"the hierarchy has {len(hierarchy.levels)} levels, but channels={channels} has "
                f"{len(channels)} entries: each level needs one"
            )
        self.hierarchy = hierarchy
        self.lifting_matrix = nnx.Param(jnp.full((hierarchy.coarsest, landmarks), 0.01))
        widths = (encoding, *channels)
        convolution = MESH_OPERATORS[operator]
        if operator == "dsc":
            convolution = functools.partial(convolution, k=kernels)
        self.layers = nnx.List(
            convolution(c, d, level.spirals.shape[1], dtype=dtype, rngs=rngs)
            for c, d, level in zip(widths, channels, hierarchy.levels[::-1], strict=False)
        )
        spirals = hierarchy.roi_spirals if roi else hierarchy.levels[0].spirals
        if spirals is None:
            raise ValueError("roi=True, but the hierarchy lacks the spirals of the hand's regions")
        self.head_spirals = StaticIndices(spirals)
        head = SeparableSpiralConv if operator == "dsconv" and not roi else SpiralConv
        # In float32 for every dtype: vertices at 0.5 to 1 units have a grid of 0.8 mm in bfloat16.
        self.head = head(channels[-1], 3, spirals.shape[1], dtype=jnp.float32, rngs=rngs)

    def lift(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b m e"]:
        """Features of the coarsest mesh's vertices: F^m = M F^p, eq. 2."""
        matrix = self.lifting_matrix[...].astype(pose_features.dtype)
        return jnp.einsum("vn,bne->bve", matrix, pose_features)

    def vertex_features(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b v c"]:
        """Features of the finest mesh's vertices, from which the head predicts positions."""
        x = self.lift(pose_features)
        for layer, level in zip(self.layers, self.hierarchy.levels[::-1], strict=True):
            x = upsample(x, level.up_indices, level.up_weights)
            x = nnx.relu(layer(x, level.spirals))
        return x

    def __call__(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b v 3"]:
        return self.head(self.vertex_features(pose_features), self.head_spirals.indices)
