"""The mesh side of the network: from features at the landmarks to a surface.

Axes: b batch, n landmarks, v vertices, e encoding channels.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.mesh.hierarchy import MeshHierarchy
from m3dhmr_jax.models.gather import Rows
from m3dhmr_jax.models.spiral_conv import (
    DynamicSpiralConv,
    SeparableSpiralConv,
    SpiralConv,
    upsample,
)

MESH_OPERATORS = ("dsc", "dsconv", "spiral")


def mesh_operator(name: str, kernels: int) -> Callable[..., nnx.Module]:
    """The class of a convolution on meshes: dynamic, depth-separable (MobRecon) or plain.

    Raises:
        ValueError: if `name` is none of MESH_OPERATORS.
    """
    if name == "dsc":
        return functools.partial(DynamicSpiralConv, k=kernels)
    if name == "dsconv":
        return SeparableSpiralConv
    if name == "spiral":
        return SpiralConv
    raise ValueError(f"mesh operator {name!r} must be one of {MESH_OPERATORS}")


class MeshDecoder(nnx.Module):
    """Lifts pose features to the coarsest mesh (eq. 2), refines level by level, ends in the head.

    With `roi` the head looks along the regions' spirals. Without, it is a plain spiral
    convolution, or depth-separable if the others are, as in MobRecon.

    Raises:
        ValueError: if the hierarchy have not as many levels as there are `channels`, or no regions.
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
            raise ValueError(
                f"the hierarchy have {len(hierarchy.levels)} levels to refine to, but channels={channels}"
                f" speaks of {len(channels)}: there must be one entry for each"
            )
        self.hierarchy = hierarchy
        self.lift = nnx.Param(jnp.full((hierarchy.coarsest, landmarks), 0.01))
        widths = (encoding, *channels)
        convolution = mesh_operator(operator, kernels)
        self.convs = nnx.List(
            convolution(c, d, level.spirals.shape[1], dtype=dtype, rngs=rngs)
            for c, d, level in zip(widths, channels, hierarchy.levels[::-1], strict=False)
        )
        rows = hierarchy.roi_spirals if roi else hierarchy.levels[0].spirals
        if rows is None:
            raise ValueError(
                "roi=True, but the hierarchy have no spirals inside the hand's regions"
            )
        self.head_spirals = Rows(rows)
        head = SeparableSpiralConv if operator == "dsconv" and not roi else SpiralConv
        self.head = head(channels[-1], 3, rows.shape[1], dtype=dtype, rngs=rngs)

    def __call__(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b v 3"]:
        x = jnp.einsum("vn,bne->bve", self.lift[...].astype(pose_features.dtype), pose_features)
        for conv, level in zip(self.convs, self.hierarchy.levels[::-1], strict=True):
            x = upsample(x, level.up_indices, level.up_weights)
            x = nnx.relu(conv(x, level.spirals))
        return self.head(x, self.head_spirals.indices)
