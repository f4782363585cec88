"""The mesh hierarchy that the decoder refines: levels, up-sampling and spirals of a hand.

Axes: v vertices of a level, s spiral length, r spiral length within a region.
"""

import dataclasses
import hashlib
import math

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand.model import CoarseLevel, HandModel
from m3dhmr_jax.mesh.coarsening import coarsen
from m3dhmr_jax.mesh.spirals import roi_spirals, spirals


@dataclasses.dataclass(frozen=True, eq=False)
class MeshLevel:
    """One resolution of the mesh, and its up-sampling from the next coarser one.

    Features on this level are `sum_k up_weights[:, k] * coarser[up_indices[:, k]]`. The weights
    of `build_hierarchy` are barycentric; those of other hierarchies need not sum to 1.
    """

    # Row i: vertex i, then its neighbours in spiral order.
    spirals: Int[np.ndarray, "v s"]
    # Both (v, 3), which MeshHierarchy checks.
    up_indices: Int[np.ndarray, "_ _"]
    up_weights: Float[np.ndarray, "_ _"]

    @property
    def n_vertices(self) -> int:
        return len(self.spirals)


@dataclasses.dataclass(frozen=True, eq=False)
class MeshHierarchy:
    """All that the decoder needs to know about a hand.

    Raises:
        ValueError: if there is no level, or if an array does not fit its level or the next coarser
            one.
    """

    levels: tuple[MeshLevel, ...]  # Finest first.
    coarsest: int  # Vertices of the mesh that the last of `levels` is up-sampled from.
    roi_spirals: Int[np.ndarray, "v r"] | None  # On the finest level, for the ROI layer.

    def __post_init__(self):
        if not self.levels:
            raise ValueError("levels=() must hold at least one level: the decoder refines a mesh")
        sizes = [level.n_vertices for level in self.levels] + [self.coarsest]
        for number, level in enumerate(self.levels):
            own, coarser = sizes[number : number + 2]
            for name in ("up_indices", "up_weights"):
                shape = getattr(level, name).shape
                if shape != (own, 3):
                    raise ValueError(
                        f"level {number} has {name} of shape {shape}, expected {(own, 3)}: "
                        "three coarser vertices per vertex"
                    )
            _check_range(f"up_indices of level {number}", level.up_indices, coarser)
            _check_range(f"spirals of level {number}", level.spirals, own)
            if not np.isfinite(level.up_weights).all():
                raise ValueError(f"up_weights of level {number} must be finite")
        if self.roi_spirals is not None:
            _check_range("the regions' spirals", self.roi_spirals, sizes[0])


def _check_range(name: str, indices: np.ndarray, n_vertices: int) -> None:
    lowest, highest = indices.min(), indices.max()
    if lowest < 0 or highest >= n_vertices:
        raise ValueError(
            f"{name} have vertex indices {lowest}..{highest}, but must lie in 0..{n_vertices - 1}"
        )


def hierarchy_id(hierarchy: MeshHierarchy) -> str:
    """A hash of the content of all arrays."""
    content = hashlib.sha256(str(hierarchy.coarsest).encode())
    for level in hierarchy.levels:
        for array in (level.spirals, level.up_indices, level.up_weights):
            content.update(np.ascontiguousarray(array).tobytes())
    if hierarchy.roi_spirals is not None:
        content.update(np.ascontiguousarray(hierarchy.roi_spirals).tobytes())
    return content.hexdigest()[:16]


def build_hierarchy(
    hand: HandModel,
    spiral_length: int = 9,
    roi_length: int = 27,
    roi_dilation: int = 2,
    level_count: int = 5,
) -> MeshHierarchy:
    """The hierarchy of `hand`: the coarser levels it ships with, then levels of half the size.

    Raises:
        ValueError: if `level_count` is below 2.
        UserError: if a spiral is longer than its level or a surface is not a manifold.
    """
    if level_count < 2:
        raise ValueError(f"level_count={level_count} must be at least 2: a mesh and a coarser one")
    vertices, faces = hand.verts_m, hand.faces
    levels = []
    for number in range(level_count - 1):
        step = _coarser(hand, number, vertices, faces)
        levels.append(
            MeshLevel(
                spirals=spirals(vertices, faces, spiral_length),
                up_indices=step.up_indices.astype(np.int32),
                up_weights=step.up_weights.astype(np.float32),
            )
        )
        vertices, faces = vertices[step.kept], step.faces
    roi = roi_spirals(hand.verts_m, hand.faces, hand.regions, roi_length, roi_dilation)
    return MeshHierarchy(tuple(levels), len(vertices), roi)


def _coarser(hand: HandModel, number: int, vertices: np.ndarray, faces: np.ndarray) -> CoarseLevel:
    """The next level after `number`: the hand's own, or one with half of the vertices."""
    if number < len(hand.levels):
        return hand.levels[number]
    return coarsen(vertices, faces, math.ceil(len(vertices) / 2))
