"""Coarser surfaces: quadric edge collapse (Garland and Heckbert 1997) that keeps a vertex subset.

Axes: v vertices, f faces. A collapse u -> v removes u and hands its faces to v, which stays put.
"""

import heapq

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand.model import CoarseLevel
from m3dhmr_jax.math3d import unit
from m3dhmr_jax.mesh.geometry import area_vectors, closest_barycentric, qualities
from m3dhmr_jax.mesh.spirals import neighbour_fans

LENGTH_WEIGHT = 0.02  # Keeps vertices spread out where the surface is flat and quadrics vanish.
MAX_NEIGHBOURS = 8  # A spiral of nine then holds the whole first ring.
MIN_COSINE = 0.2  # Between a triangle's normals before and after.
MIN_QUALITIES = (0.3, 0.1, 0.0)  # Tried in turn, once nothing more can collapse under the last.


def coarsen(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], n_vertices: int
) -> CoarseLevel:
    """Decimates to `n_vertices` of the vertices and ties each fine vertex to the coarse surface.

    The wrist stays one open loop, no triangle flips, and surviving vertices are reproduced exactly.

    Raises:
        ValueError: if `n_vertices` is not below the number of vertices, if the surface is no
            manifold, or if no further collapse is possible without folding it.
    """
    if not 3 <= n_vertices < len(vertices):
        raise ValueError(
            f"n_vertices={n_vertices} must be at least 3 and below {len(vertices)}, the number of "
            "vertices of the finer level"
        )
    neighbour_fans(faces, len(vertices))
    points = vertices.astype(np.float64)
    surface = _Surface(points, faces)
    for min_quality in MIN_QUALITIES:
        surface.collapse_to(n_vertices, min_quality)
    if len(surface.alive) > n_vertices:
        raise ValueError(
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
    """For each fine vertex its closest point on the faces near the coarse vertex it went to."""
    # Only near ones: a coarse finger may come closer to its neighbour's vertices than to its own.
    touches = np.zeros((len(faces), len(kept)), bool)
    touches[np.arange(len(faces))[:, None], faces] = True
    near = touches.astype(int) @ (touches.T.astype(int) @ touches[:, owner]) > 0
    triangles = points[kept][faces]
    indices = np.empty((len(points), 3), np.int32)
    weights = np.empty((len(points), 3), np.float32)
    for vertex, point in enumerate(points):
        candidates = np.flatnonzero(near[:, vertex])
        barycentric = closest_barycentric(point, triangles[candidates])
        places = np.einsum("fk,fkx->fx", barycentric, triangles[candidates])
        best = np.linalg.norm(places - point, axis=1).argmin()
        indices[vertex] = faces[candidates[best]]
        weights[vertex] = barycentric[best]
    return indices, weights


class _Surface:
    """A triangle surface that shrinks by collapses; vertices and faces keep their numbers."""

    def __init__(self, points: np.ndarray, faces: np.ndarray):
        self.points = points
        self.corners: list[tuple[int, ...]] = [tuple(face) for face in faces.tolist()]
        self.around: list[set[int]] = [set() for _ in points]
        for face, corners in enumerate(self.corners):
            for vertex in corners:
                self.around[vertex].add(face)
        self.alive = set(range(len(points)))
        self.into = np.arange(len(points))
        self.changes = [0] * len(points)
        self.quadrics, self.masses = _quadrics(points, faces)

    def collapse_to(self, n_vertices: int, min_quality: float) -> None:
        """Takes the cheapest allowed collapse, again and again; stops early when none is left."""
        queue = [entry for vertex in self.alive for entry in self._collapses_of(vertex)]
        heapq.heapify(queue)
        while queue and len(self.alive) > n_vertices:
            _, gone, stays, stamp = heapq.heappop(queue)
            if stamp != self._stamp(gone, stays) or not self._allowed(gone, stays, min_quality):
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
        """The surviving vertex that each vertex ended in."""
        owner = self.into
        while (following := owner[owner]).tolist() != owner.tolist():
            owner = following
        return owner

    def _stamp(self, u: int, v: int) -> tuple[int, int]:
        """Differs from an earlier one as soon as anything near the edge has changed."""
        return (self.changes[u], self.changes[v])

    def _neighbours(self, vertex: int) -> set[int]:
        return {other for face in self.around[vertex] for other in self.corners[face]} - {vertex}

    def _on_border(self, vertex: int) -> bool:
        return len(self.around[vertex]) < len(self._neighbours(vertex))

    def _collapses_of(self, gone: int) -> list[tuple[float, int, int, tuple[int, int]]]:
        return [
            (self._cost(gone, stays), gone, stays, self._stamp(gone, stays))
            for stays in self._neighbours(gone)
        ]

    def _cost(self, gone: int, stays: int) -> float:
        """Squared distances from the planes met so far, and squared way times relative area."""
        place = np.append(self.points[stays], 1)
        off_planes = place @ (self.quadrics[gone] + self.quadrics[stays]) @ place
        way = self.points[stays] - self.points[gone]
        return float(off_planes + LENGTH_WEIGHT * self.masses[gone] * (way @ way))

    def _allowed(self, gone: int, stays: int, min_quality: float) -> bool:
        return self._keeps_topology(gone, stays) and self._keeps_shape(gone, stays, min_quality)

    def _keeps_topology(self, gone: int, stays: int) -> bool:
        """The link condition, a border that only moves along itself, and bounded fans."""
        between = self.around[gone] & self.around[stays]
        opposite = {other for face in between for other in self.corners[face]} - {gone, stays}
        theirs, ours = self._neighbours(gone), self._neighbours(stays)
        if theirs & ours != opposite:
            return False
        if self._on_border(gone) and len(between) == 2:
            return False
        thin = any(len(self._neighbours(other)) <= 3 - self._on_border(other) for other in opposite)
        return not thin and len(theirs | ours) - 2 <= MAX_NEIGHBOURS

    def _keeps_shape(self, gone: int, stays: int, min_quality: float) -> bool:
        moved = [self.corners[face] for face in self.around[gone] - self.around[stays]]
        if not moved:
            return False
        before = self.points[np.array(moved)]
        after = before.copy()
        after[np.array(moved) == gone] = self.points[stays]
        old, new = area_vectors(before), area_vectors(after)
        lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
        turned = (old * new).sum(1) <= MIN_COSINE * lengths
        return not turned.any() and bool((qualities(after) > min_quality).all())

    def _collapse(self, gone: int, stays: int) -> None:
        for face in self.around[gone] & self.around[stays]:
            for vertex in self.corners[face]:
                self.around[vertex].discard(face)
            self.corners[face] = ()
        for face in self.around[gone]:
            corners = self.corners[face]
            self.corners[face] = tuple(stays if vertex == gone else vertex for vertex in corners)
            self.around[stays].add(face)
        self.around[gone] = set()
        self.alive.remove(gone)
        self.into[gone] = stays
        self.quadrics[stays] += self.quadrics[gone]
        self.masses[stays] += self.masses[gone]


def _quadrics(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per vertex the summed squared distance to its planes as a 4x4 form, and its share of area.

    Planes count alike, whatever their triangle's size: fingertips are made of small triangles.
    """
    quadrics = np.zeros((len(points), 4, 4))
    masses = np.zeros(len(points))
    normals = area_vectors(points[faces])
    areas = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = unit(normals)
    np.add.at(masses, faces, areas / areas.mean() / 3)
    np.add.at(quadrics, faces, _plane_forms(normals, points[faces[:, 0]])[:, None])
    start, end, face = _border(faces)
    along = points[end] - points[start]
    upright = unit(np.cross(along, normals[face]))
    forms = _plane_forms(upright, points[start])
    np.add.at(quadrics, start, forms)
    np.add.at(quadrics, end, forms)
    return quadrics, masses


def _border(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, end and face of every edge that has a face on one side only."""
    start, end = faces.T.reshape(-1), np.roll(faces, -1, axis=1).T.reshape(-1)
    count = faces.max() + 1
    open_edges = np.flatnonzero(~np.isin(start * count + end, end * count + start))
    return start[open_edges], end[open_edges], open_edges % len(faces)


def _plane_forms(normals: np.ndarray, places: np.ndarray) -> np.ndarray:
    planes = np.concatenate([normals, -(normals * places).sum(1, keepdims=True)], axis=1)
    return planes[:, :, None] * planes[:, None, :]
