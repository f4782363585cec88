"""Spirals: for each vertex, its surroundings in one consistent turning direction (SpiralNet++).

Axes: v vertices, f faces, s spiral length. Faces are counter-clockwise seen from outside; spirals
turn clockwise seen from outside. The order depends on the order of the faces.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

Fans = list[list[int]]


def neighbour_fans(faces: Int[np.ndarray, "f 3"], n_vertices: int) -> Fans:
    """The neighbours of each vertex, clockwise seen from outside.

    A border vertex's list runs from border to border. An interior vertex's starts at the vertex
    that follows it in the last face that contains it.

    Raises:
        ValueError: if a face names a vertex that does not exist or names one twice, if two faces
            run along an edge in the same direction, or if a vertex's faces are not one single fan.
    """
    _check_faces(faces, n_vertices)
    turn: list[dict[int, int]] = [{} for _ in range(n_vertices)]
    start = [-1] * n_vertices
    for a, b, c in faces.tolist():
        for before, vertex, after in ((a, b, c), (b, c, a), (c, a, b)):
            if before in turn[vertex]:
                raise ValueError(
                    f"two faces contain the edge {before} -> {vertex} in this direction: the "
                    "surface must be a manifold with consistently oriented faces"
                )
            turn[vertex][before] = after
            start[vertex] = after
    return [_fan(vertex, turn[vertex], start[vertex]) for vertex in range(n_vertices)]


def _check_faces(faces: np.ndarray, n_vertices: int) -> None:
    if len(faces) and (faces.min() < 0 or faces.max() >= n_vertices):
        raise ValueError(
            f"faces name vertices {faces.min()}..{faces.max()}, "
            f"but the surface has vertices 0..{n_vertices - 1}"
        )
    repeated = (faces == np.roll(faces, 1, axis=1)).any(1)
    if repeated.any():
        face = int(repeated.argmax())
        raise ValueError(f"face {face} is {faces[face].tolist()}: its corners must be distinct")


def _fan(vertex: int, turn: dict[int, int], start: int) -> list[int]:
    """Follows `turn` around `vertex`, from the border if it lies on one."""
    if not turn:
        raise ValueError(f"vertex {vertex} belongs to no face: remove it from the surface")
    border = turn.keys() - set(turn.values())
    fan = [border.pop() if border else start]
    while (following := turn.get(fan[-1], fan[0])) != fan[0]:
        fan.append(following)
    if len(fan) != len(turn.keys() | set(turn.values())):
        raise ValueError(
            f"the faces around vertex {vertex} are several fans that touch only in it: "
            "split the vertex so that the surface becomes a manifold"
        )
    return fan


def _next_ring(ring: list[int], used: set[int], fans: Fans) -> list[int]:
    """The vertices just outside `ring` in turning order; `used` includes `ring` and gains them."""
    inside = set(ring)
    outer = []
    for vertex in ring:
        fan = fans[vertex]
        first = next((i for i, other in enumerate(fan) if other in inside), -1)
        for other in fan[first + 1 :] + fan[: first + 1]:
            if other not in used:
                used.add(other)
                outer.append(other)
    return outer


def _walk(vertex: int, count: int, fans: Fans) -> list[int]:
    """`vertex` and its rings, cut to `count`; shorter if its component has fewer vertices."""
    spiral = [vertex]
    ring = fans[vertex]
    used = {vertex, *ring}
    while ring and len(spiral) < count:
        spiral += ring
        ring = _next_ring(ring, used, fans)
    return spiral[:count]


def spirals(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    length: int,
    dilation: int = 1,
) -> Int[np.ndarray, "v s"]:
    """Row i: every `dilation`-th of vertex i, its first ring, its second ring, ... (SpiralNet++).

    Where a component has too few vertices for that, the row is made of the nearest vertices
    instead, as SpiralNet++ does.

    Raises:
        ValueError: if `length` or `dilation` is below 1, if the surface has fewer vertices than
            `length * dilation`, or if it is no manifold (see `neighbour_fans`).
    """
    _check_extent(length, dilation)
    count = length * dilation
    if count > len(vertices):
        raise ValueError(
            f"length={length} times dilation={dilation} must be at most {len(vertices)}, the "
            "number of vertices: a spiral names no vertex twice"
        )
    fans = neighbour_fans(faces, len(vertices))
    rows = [_walk(vertex, count, fans) for vertex in range(len(vertices))]
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
    """Spirals that never leave their vertex's region (M3DHMR's region-of-interest layer).

    Where the walk ends early it goes on with the nearest vertices of the same region. A region
    too small for `length * dilation` gives the vertices that the dilation skipped, and only when
    it is used up, the same ones again.

    Raises:
        ValueError: if `length` or `dilation` is below 1 or the surface is no manifold.
    """
    _check_extent(length, dilation)
    count = length * dilation
    fans = [
        [other for other in fan if regions[other] == regions[vertex]]
        for vertex, fan in enumerate(neighbour_fans(faces, len(vertices)))
    ]
    rows = []
    for vertex, region in enumerate(regions):
        walk = _walk(vertex, count, fans)
        if len(walk) < count:
            members = np.setdiff1d(np.flatnonzero(regions == region), walk)
            walk += _by_distance(vertices, vertex, members)
        rows.append(_dilate(walk[:count], length, dilation))
    return np.array(rows, np.int32)


def _by_distance(vertices: np.ndarray, vertex: int, members: np.ndarray) -> list[int]:
    """`members`, the nearest to `vertex` first."""
    distance = np.linalg.norm(vertices[members] - vertices[vertex], axis=1)
    return members[np.argsort(distance, kind="stable")].tolist()


def _dilate(walk: Sequence[int], length: int, dilation: int) -> np.ndarray:
    """Every `dilation`-th entry, then those in between, then all of them again, up to `length`."""
    order = np.concatenate([walk[offset::dilation] for offset in range(dilation)])
    return np.resize(order, length)


def _check_extent(length: int, dilation: int) -> None:
    if length < 1 or dilation < 1:
        raise ValueError(
            f"length={length} and dilation={dilation} must be at least 1: "
            "a spiral begins with its own vertex"
        )
