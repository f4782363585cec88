"""The mesh side of the network: from features at the landmarks to a surface.

Axes: b batch, n landmarks, v vertices, e encoding channels.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from m3dhmr_jax.mesh.hierarchy import MeshTables
from m3dhmr_jax.models.layers import DynamicSpiralConv, SpiralConv, upsample


class MeshDecoder(nnx.Module):
    """Lifts pose features to the coarsest mesh (eq. 2), refines level by level, ends in regions."""

    def __init__(
        self,
        landmarks: int,
        encoding: int,
        channels: tuple[int, ...],
        kernels: int,
        tables: MeshTables,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.tables = tables
        coarsest = len(tables.levels[-1].spirals)
        self.lift = nnx.Param(jnp.full((coarsest, landmarks), 0.01))
        widths = (encoding, *channels)
        self.convs = nnx.List(
            DynamicSpiralConv(c, d, level.spirals.shape[1], kernels, dtype=dtype, rngs=rngs)
            for c, d, level in zip(widths, channels, tables.levels[-2::-1], strict=False)
        )
        roi_length = tables.roi_spirals.shape[1]
        self.roi = SpiralConv(channels[-1], 3, roi_length, dtype=dtype, rngs=rngs)

    def __call__(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b v 3"]:
        x = jnp.einsum("vn,bne->bve", self.lift[...].astype(pose_features.dtype), pose_features)
        for conv, level in zip(self.convs, self.tables.levels[-2::-1], strict=True):
            assert level.up_indices is not None  # The coarsest level alone has none.
            assert level.up_weights is not None
            x = upsample(x, level.up_indices, level.up_weights)
            x = nnx.relu(conv(x, level.spirals))
        return self.roi(x, self.tables.roi_spirals)
