"""The fixed tables of a hand that the network is built on: levels, up-sampling and spirals.

Axes: v vertices of a level, f its faces, s spiral length, r length of a region's spiral.
"""

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand.model import CoarseLevel, HandModel
from m3dhmr_jax.mesh.coarsening import coarsen
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
    """All that the decoder needs to know about a hand, finest level first.

    Raises:
        ValueError: if a level's up-sampling does not fit the next coarser level.
    """

    levels: tuple[MeshLevel, ...]
    roi_spirals: Int[np.ndarray, "v r"]  # On the finest level, each inside its vertex's region.

    def __post_init__(self):
        for number, (fine, coarse) in enumerate(itertools.pairwise(self.levels)):
            if fine.up_indices is None or fine.up_weights is None:
                raise ValueError(
                    f"level {number} has no up-sampling: only the coarsest level goes without"
                )
            if fine.up_indices.shape != (fine.n_vertices, 3):
                raise ValueError(
                    f"level {number} has up_indices of shape {fine.up_indices.shape}, expected "
                    f"{(fine.n_vertices, 3)}: three coarser vertices for each of its own"
                )
            lowest, highest = fine.up_indices.min(), fine.up_indices.max()
            if lowest < 0 or highest >= coarse.n_vertices:
                raise ValueError(
                    f"up_indices of level {number} name vertices {lowest}..{highest}, but the next "
                    f"coarser level has vertices 0..{coarse.n_vertices - 1}"
                )


def build_tables(
    hand: HandModel,
    spiral_length: int = 9,
    roi_length: int = 27,
    roi_dilation: int = 2,
    level_count: int = 5,
) -> MeshTables:
    """The tables of `hand`: on the coarser levels it ships with, then on ones half as large each.

    Raises:
        ValueError: if `level_count` is below 1, if a spiral does not fit on its level, or if a
            surface is no manifold.
    """
    if level_count < 1:
        raise ValueError(f"level_count={level_count} must be at least 1: the surface itself")
    vertices, faces = hand.vertices, hand.faces
    levels = []
    for number in range(level_count):
        own = spirals(vertices, faces, spiral_length)
        if number == level_count - 1:
            levels.append(MeshLevel(faces.astype(np.int32), own, None, None))
            break
        step = _coarser(hand, number, vertices, faces)
        levels.append(
            MeshLevel(
                faces=faces.astype(np.int32),
                spirals=own,
                up_indices=step.up_indices.astype(np.int32),
                up_weights=step.up_weights.astype(np.float32),
            )
        )
        vertices, faces = vertices[step.kept], step.faces
    roi = roi_spirals(hand.vertices, hand.faces, hand.regions, roi_length, roi_dilation)
    return MeshTables(tuple(levels), roi)


def _coarser(hand: HandModel, number: int, vertices: np.ndarray, faces: np.ndarray) -> CoarseLevel:
    """The step from level `number` to the next: the hand's own, or half of the vertices."""
    if number < len(hand.levels):
        return hand.levels[number]
    return coarsen(vertices, faces, math.ceil(len(vertices) / 2))
