"""Spirals (eq. 3): each vertex, then its rings, in one consistent rotational order (SpiralNet++).

Axes: v vertices, f faces, s spiral length. Faces are counter-clockwise and spirals clockwise, seen
from outside. The order within the rings depends on the order of the faces.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.errors import UserError

OneRings = list[list[int]]


def ordered_one_rings(faces: Int[np.ndarray, "f 3"], n_vertices: int) -> OneRings:
    """The neighbours of each vertex, clockwise seen from outside.

    The one-ring of a border vertex runs from border to border. That of an interior vertex starts
    at the vertex that follows it in the last face that contains it.

    Raises:
        UserError: if a face has an index out of range or a repeated vertex, or if the surface is
            not a manifold with consistently oriented faces.
    """
    _check_faces(faces, n_vertices)
    next_around: list[dict[int, int]] = [{} for _ in range(n_vertices)]
    start = [-1] * n_vertices
    for a, b, c in faces.tolist():
        for before, vertex, after in ((a, b, c), (b, c, a), (c, a, b)):
            if before in next_around[vertex]:
                raise UserError(
                    f"two faces contain the edge {before} -> {vertex} in this direction: the "
                    "surface must be a manifold with consistently oriented faces"
                )
            next_around[vertex][before] = after
            start[vertex] = after
    return [_one_ring(vertex, next_around[vertex], start[vertex]) for vertex in range(n_vertices)]


def _check_faces(faces: np.ndarray, n_vertices: int) -> None:
    if len(faces) and (faces.min() < 0 or faces.max() >= n_vertices):
        raise UserError(
            f"faces have vertex indices {faces.min()}..{faces.max()}, "
            f"but the surface has vertices 0..{n_vertices - 1}"
        )
    repeated = (faces == np.roll(faces, 1, axis=1)).any(1)
    if repeated.any():
        face = int(repeated.argmax())
        raise UserError(f"face {face} is {faces[face].tolist()}: its corners must be distinct")


def _one_ring(vertex: int, next_around: dict[int, int], start: int) -> list[int]:
    """Follows `next_around`, from the border if the vertex lies on one."""
    if not next_around:
        raise UserError(f"vertex {vertex} belongs to no face: remove it from the surface")
    border = next_around.keys() - set(next_around.values())
    ring = [border.pop() if border else start]
    while (following := next_around.get(ring[-1], ring[0])) != ring[0]:
        ring.append(following)
    if len(ring) != len(next_around.keys() | set(next_around.values())):
        raise UserError(
            f"the faces around vertex {vertex} form several fans that share only this vertex: "
            "split it so that the surface becomes a manifold"
        )
    return ring


def _next_ring(ring: list[int], visited: set[int], one_rings: OneRings) -> list[int]:
    """The next larger ring of eq. 3, in rotational order; adds it to `visited`."""
    inside = set(ring)
    outer = []
    for vertex in ring:
        neighbours = one_rings[vertex]
        first = next((i for i, other in enumerate(neighbours) if other in inside), -1)
        for other in neighbours[first + 1 :] + neighbours[: first + 1]:
            if other not in visited:
                visited.add(other)
                outer.append(other)
    return outer


def _grow_spiral(vertex: int, count: int, one_rings: OneRings) -> list[int]:
    """`vertex` and its rings, truncated to `count`; shorter if its component is smaller."""
    spiral = [vertex]
    ring = one_rings[vertex]
    visited = {vertex, *ring}
    while ring and len(spiral) < count:
        spiral += ring
        ring = _next_ring(ring, visited, one_rings)
    return spiral[:count]


def spirals(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    length: int,
    dilation: int = 1,
) -> Int[np.ndarray, "v s"]:
    """Row i: every `dilation`-th of vertex i, its 1-ring, its 2-ring, ... (k-disk of eq. 3).

    In a component with too few vertices the row holds the nearest vertices of the whole surface
    instead, as in SpiralNet++.

    Raises:
        UserError: if `length` or `dilation` is below 1, if the surface has fewer vertices than
            `length * dilation`, or if it is not a manifold (see `ordered_one_rings`).
    """
    _check_extent(length, dilation)
    count = length * dilation
    if count > len(vertices):
        raise UserError(
            f"length={length} times dilation={dilation} must be at most {len(vertices)}, the "
            "number of vertices: a spiral contains no vertex twice"
        )
    one_rings = ordered_one_rings(faces, len(vertices))
    rows = [_grow_spiral(vertex, count, one_rings) for vertex in range(len(vertices))]
    for vertex, row in enumerate(rows):
        if len(row) < count:
            rows[vertex] = _by_distance(vertices, vertex, np.arange(len(vertices)))[:count]
    return np.array([row[::dilation] for row in rows], np.int32)


def roi_spirals(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    regions: Int[np.ndarray, " v"],
    length: int,
    dilation: int = 1,
) -> Int[np.ndarray, "v s"]:
    """Dilated spirals that never leave their vertex's region (ROI layer, fig. 3).

    A spiral that ends early continues with the nearest vertices of the same region. In a region
    with fewer than `length * dilation` vertices it then takes the vertices that the dilation
    skipped, and repeats vertices only when the region is exhausted.

    Raises:
        UserError: if `length` or `dilation` is below 1 or the surface is not a manifold.
    """
    _check_extent(length, dilation)
    count = length * dilation
    one_rings = [
        [other for other in ring if regions[other] == regions[vertex]]
        for vertex, ring in enumerate(ordered_one_rings(faces, len(vertices)))
    ]
    rows = []
    for vertex, region in enumerate(regions):
        row = _grow_spiral(vertex, count, one_rings)
        if len(row) < count:
            members = np.setdiff1d(np.flatnonzero(regions == region), row)
            row += _by_distance(vertices, vertex, members)
        rows.append(_dilate(row[:count], length, dilation))
    return np.array(rows, np.int32)


def _by_distance(vertices: np.ndarray, vertex: int, members: np.ndarray) -> list[int]:
    """`members`, the nearest to `vertex` first."""
    distance = np.linalg.norm(vertices[members] - vertices[vertex], axis=1)
    return members[np.argsort(distance, kind="stable")].tolist()


def _dilate(row: Sequence[int], length: int, dilation: int) -> np.ndarray:
    """Every `dilation`-th entry, then those in between, then all of them again, up to `length`."""
    order = np.concatenate([row[offset::dilation] for offset in range(dilation)])
    return np.resize(order, length)


def _check_extent(length: int, dilation: int) -> None:
    if length < 1 or dilation < 1:
        raise UserError(
            f"length={length} and dilation={dilation} must be at least 1: "
            "a spiral begins with its own vertex"
        )
