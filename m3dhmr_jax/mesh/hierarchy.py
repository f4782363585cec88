"""The fixed tables of a hand that the network is built on: levels, up-sampling and spirals.

Axes: v vertices of a level, f its faces, s spiral length, r length of a region's spiral.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand.model import CoarseLevel, HandModel
from m3dhmr_jax.mesh.spirals import roi_spirals, spirals


@dataclasses.dataclass(frozen=True, eq=False)
class MeshLevel:
    """One resolution of the surface.

    A value on this level is `sum_k up_weights[:, k] * coarser[up_indices[:, k]]`. The weights are
    barycentric if made here, but need not be: other tables may have rows that do not sum to 1.
    """

    faces: Int[np.ndarray, "f 3"]
    spirals: Int[np.ndarray, "v s"]  # Row i: vertex i, then its neighbours in spiral order.
    up_indices: Int[np.ndarray, "v 3"] | None  # None on the coarsest level, like the weights.
    up_weights: Float[np.ndarray, "v 3"] | None

    @property
    def n_vertices(self) -> int:
        return len(self.spirals)


@dataclasses.dataclass(frozen=True, eq=False)
class MeshTables:
    """All that the decoder needs to know about a hand, finest level first."""

    levels: tuple[MeshLevel, ...]
    roi_spirals: Int[np.ndarray, "v r"]  # On the finest level, each inside its vertex's region.


def build_tables(
    hand: HandModel,
    spiral_length: int = 9,
    roi_length: int = 27,
    roi_dilation: int = 2,
    level_count: int = 5,
) -> MeshTables:
    """The tables of `hand`, on its own coarser levels.

    Raises:
        ValueError: if a spiral does not fit on its level or the surface is no manifold.
    """
    steps: list[CoarseLevel] = list(hand.levels[: level_count - 1])
    surfaces = [(hand.vertices, hand.faces)]
    for step in steps:
        surfaces.append((surfaces[-1][0][step.kept], step.faces))
    levels = tuple(
        MeshLevel(
            faces=faces.astype(np.int32),
            spirals=spirals(vertices, faces, spiral_length),
            up_indices=step.up_indices.astype(np.int32) if step else None,
            up_weights=step.up_weights.astype(np.float32) if step else None,
        )
        for (vertices, faces), step in zip(surfaces, [*steps, None], strict=True)
    )
    roi = roi_spirals(hand.vertices, hand.faces, hand.regions, roi_length, roi_dilation)
    return MeshTables(levels, roi)
