"""Mesh coarsening: quadric edge collapse (Garland and Heckbert 1997) that keeps a vertex subset.

Axes: v vertices, f faces. A collapse u -> v removes u and reconnects its faces to v, which does not
move.
"""

import heapq

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand.model import CoarseLevel
from m3dhmr_jax.math3d import unit
from m3dhmr_jax.mesh.geometry import area_vectors, closest_barycentric, qualities
from m3dhmr_jax.mesh.spirals import ordered_one_rings

LENGTH_WEIGHT = 0.02  # Keeps vertices spread out where the surface is flat and quadrics vanish.
MAX_NEIGHBOURS = 8  # A spiral of length nine then holds the complete 1-ring.
MIN_COSINE = 0.2  # Between a triangle's normals before and after a collapse.
MIN_QUALITIES = (0.3, 0.1, 0.0)  # Relaxed in turn when no further collapse is allowed.


def coarsen(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], n_vertices: int
) -> CoarseLevel:
    """Decimates to `n_vertices` of the vertices and computes the up-sampling back.

    The wrist stays one open loop, no triangle flips, and up-sampling reproduces the remaining
    vertices exactly.

    Raises:
        ValueError: if `n_vertices` is below 3 or not below the number of vertices.
        UserError: if the surface is not a manifold or cannot be coarsened that far without folding.
    """
    if not 3 <= n_vertices < len(vertices):
        raise ValueError(
            f"n_vertices={n_vertices} must be at least 3 and below {len(vertices)}, the size of "
            "the finer level"
        )
    ordered_one_rings(faces, len(vertices))  # Checks that the surface is a manifold.
    points = vertices.astype(np.float64)
    surface = _Surface(points, faces)
    for min_quality in MIN_QUALITIES:
        surface.collapse_to(n_vertices, min_quality)
    if len(surface.alive) > n_vertices:
        raise UserError(
            f"the surface cannot be coarsened from {len(vertices)} to n_vertices={n_vertices}: it "
            f"would fold or tear below {len(surface.alive)}; ask for at least that many"
        )
    kept = np.array(sorted(surface.alive), np.int32)
    remaining = np.array([corners for corners in surface.corners if corners], np.int32)
    coarse_faces = np.searchsorted(kept, remaining).astype(np.int32)
    owner = np.searchsorted(kept, surface.owners())
    indices, weights = _upsampling(points, kept, coarse_faces, owner)
    return CoarseLevel(kept, coarse_faces, indices, weights)


def _upsampling(
    points: np.ndarray, kept: np.ndarray, faces: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each fine vertex the closest point on the faces near its coarse vertex."""
    # Only nearby faces: a neighbouring finger may be closer than the vertex's own coarse finger.
    touches = np.zeros((len(faces), len(kept)), bool)
    touches[np.arange(len(faces))[:, None], faces] = True
    near = touches.astype(int) @ (touches.T.astype(int) @ touches[:, owner]) > 0
    triangles = points[kept][faces]
    indices = np.empty((len(points), 3), np.int32)
    weights = np.empty((len(points), 3), np.float32)
    for vertex, point in enumerate(points):
        candidates = np.flatnonzero(near[:, vertex])
        barycentric = closest_barycentric(point, triangles[candidates])
        closest = np.einsum("fk,fkx->fx", barycentric, triangles[candidates])
        best = np.linalg.norm(closest - point, axis=1).argmin()
        indices[vertex] = faces[candidates[best]]
        weights[vertex] = barycentric[best]
    return indices, weights


class _Surface:
    """A triangle mesh under edge collapses; vertices and faces keep their indices."""

    def __init__(self, points: np.ndarray, faces: np.ndarray):
        self.points = points
        self.corners: list[tuple[int, ...]] = [tuple(face) for face in faces.tolist()]
        self.faces_of: list[set[int]] = [set() for _ in points]
        for face, corners in enumerate(self.corners):
            for vertex in corners:
                self.faces_of[vertex].add(face)
        self.alive = set(range(len(points)))
        self.collapsed_into = np.arange(len(points))
        self.changes = [0] * len(points)
        self.quadrics, self.areas = _quadrics(points, faces)

    def collapse_to(self, n_vertices: int, min_quality: float) -> None:
        """Repeats the cheapest allowed collapse; stops early when none is left."""
        queue = [entry for vertex in self.alive for entry in self._collapses_of(vertex)]
        heapq.heapify(queue)
        while queue and len(self.alive) > n_vertices:
            _, gone, stays, version = heapq.heappop(queue)
            if version != self._version(gone, stays) or not self._allowed(gone, stays, min_quality):
                continue
            self._collapse(gone, stays)
            touched = {stays, *self._neighbours(stays)}
            for vertex in touched:
                self.changes[vertex] += 1
            for vertex in touched | {far for near in touched for far in self._neighbours(near)}:
                for entry in self._collapses_of(vertex):
                    if vertex in touched or entry[2] in touched:
                        heapq.heappush(queue, entry)

    def owners(self) -> np.ndarray:
        """The remaining vertex that each vertex was collapsed into."""
        owner = self.collapsed_into
        while (following := owner[owner]).tolist() != owner.tolist():
            owner = following
        return owner

    def _version(self, u: int, v: int) -> tuple[int, int]:
        """Changes whenever anything near the edge changes."""
        return (self.changes[u], self.changes[v])

    def _neighbours(self, vertex: int) -> set[int]:
        return {other for face in self.faces_of[vertex] for other in self.corners[face]} - {vertex}

    def _on_border(self, vertex: int) -> bool:
        return len(self.faces_of[vertex]) < len(self._neighbours(vertex))

    def _collapses_of(self, gone: int) -> list[tuple[float, int, int, tuple[int, int]]]:
        return [
            (self._cost(gone, stays), gone, stays, self._version(gone, stays))
            for stays in self._neighbours(gone)
        ]

    def _cost(self, gone: int, stays: int) -> float:
        """Quadric error plus squared edge length, weighted by relative area."""
        position = np.append(self.points[stays], 1)
        quadric_error = position @ (self.quadrics[gone] + self.quadrics[stays]) @ position
        edge = self.points[stays] - self.points[gone]
        return float(quadric_error + LENGTH_WEIGHT * self.areas[gone] * (edge @ edge))

    def _allowed(self, gone: int, stays: int, min_quality: float) -> bool:
        return self._keeps_topology(gone, stays) and self._keeps_shape(gone, stays, min_quality)

    def _keeps_topology(self, gone: int, stays: int) -> bool:
        """The link condition, a border that only moves along itself, and bounded valence."""
        shared = self.faces_of[gone] & self.faces_of[stays]
        opposite = {other for face in shared for other in self.corners[face]} - {gone, stays}
        theirs, ours = self._neighbours(gone), self._neighbours(stays)
        if theirs & ours != opposite:
            return False
        if self._on_border(gone) and len(shared) == 2:
            return False
        thin = any(len(self._neighbours(other)) <= 3 - self._on_border(other) for other in opposite)
        return not thin and len(theirs | ours) - 2 <= MAX_NEIGHBOURS

    def _keeps_shape(self, gone: int, stays: int, min_quality: float) -> bool:
        moved = [self.corners[face] for face in self.faces_of[gone] - self.faces_of[stays]]
        if not moved:
            return False
        before = self.points[np.array(moved)]
        after = before.copy()
        after[np.array(moved) == gone] = self.points[stays]
        old, new = area_vectors(before), area_vectors(after)
        lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
        flipped = (old * new).sum(1) <= MIN_COSINE * lengths
        return not flipped.any() and bool((qualities(after) > min_quality).all())

    def _collapse(self, gone: int, stays: int) -> None:
        for face in self.faces_of[gone] & self.faces_of[stays]:
            for vertex in self.corners[face]:
                self.faces_of[vertex].discard(face)
            self.corners[face] = ()
        for face in self.faces_of[gone]:
            corners = self.corners[face]
            self.corners[face] = tuple(stays if vertex == gone else vertex for vertex in corners)
            self.faces_of[stays].add(face)
        self.faces_of[gone] = set()
        self.alive.remove(gone)
        self.collapsed_into[gone] = stays
        self.quadrics[stays] += self.quadrics[gone]
        self.areas[stays] += self.areas[gone]


def _quadrics(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per vertex, its quadric (4x4) and its part of the area, relative to the mean triangle.

    Planes are not weighted by area: fingertips are made of small triangles.
    """
    quadrics = np.zeros((len(points), 4, 4))
    vertex_areas = np.zeros(len(points))
    normals = area_vectors(points[faces])
    areas = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = unit(normals)
    np.add.at(vertex_areas, faces, areas / areas.mean() / 3)
    np.add.at(quadrics, faces, _plane_quadrics(normals, points[faces[:, 0]])[:, None])
    start, end, face = _border(faces)
    upright = unit(np.cross(points[end] - points[start], normals[face]))
    quadric = _plane_quadrics(upright, points[start])
    np.add.at(quadrics, start, quadric)
    np.add.at(quadrics, end, quadric)
    return quadrics, vertex_areas


def _border(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, end and face of every border edge."""
    start, end = faces.T.reshape(-1), np.roll(faces, -1, axis=1).T.reshape(-1)
    count = faces.max() + 1
    open_edges = np.flatnonzero(~np.isin(start * count + end, end * count + start))
    return start[open_edges], end[open_edges], open_edges % len(faces)


def _plane_quadrics(normals: np.ndarray, points: np.ndarray) -> np.ndarray:
    planes = np.concatenate([normals, -(normals * points).sum(1, keepdims=True)], axis=1)
    return planes[:, :, None] * planes[:, None, :]
