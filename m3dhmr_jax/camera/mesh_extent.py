"""The silhouette extent of a projected mesh, on the device; see camera/silhouette.py.

Axes: v vertices, k directions.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from m3dhmr_jax.camera.pinhole import project
from m3dhmr_jax.camera.silhouette import DIRECTIONS
from m3dhmr_jax.types import FloatArray


def mesh_extent_px(
    verts_rel_m: Float[FloatArray, "v 3"],
    t_m: Float[Array, "3"],
    intrinsics: Float[FloatArray, "3 3"],
) -> Float[Array, " k"]:
    """The extent of the projected vertices with the root at `t_m`.

    Differentiable in `t_m` through the extreme vertex of each direction.
    """
    verts = jnp.asarray(verts_rel_m)
    projected_px = project(verts + t_m[None], intrinsics)
    along = (
        DIRECTIONS[:, :1] * projected_px[None, :, 0] + DIRECTIONS[:, 1:] * projected_px[None, :, 1]
    )
    extreme = verts[jnp.argmax(along, axis=1)]
    return jnp.sum(DIRECTIONS * project(extreme + t_m[None], intrinsics), axis=1)
