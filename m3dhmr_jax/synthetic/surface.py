"""The surface that is drawn: hand and forearm in one piece, subdivided once and closed.

Axes: v hand vertices, a arm vertices, m drawn vertices, f faces, e edges, r = rim of the wrist,
s rings of the arm. Each edge is split at the middle of a cubic that respects the normals at its
ends (curved PN triangles, Vlachos et al. 2001), so the hand's own vertices, which are the labels,
stay on the drawn surface.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.hand import HandDetails, HandModel

# Distances of the arm's rings from the wrist's rim along the arm, metres; the elbow is at 0.25.
RING_STEPS_MM = (6, 8, 10, 13, 16, 20, 25, 30, 35, 35, 25, 20, 18, 18, 20, 30, 50, 70, 80)
RING_REACH_M = np.cumsum(RING_STEPS_MM) / 1000


class Masks(NamedTuple):
    """Where skin differs, in [0, 1], per drawn vertex."""

    palmar: Float[np.ndarray, " m"]
    nail: Float[np.ndarray, " m"]
    knuckle: Float[np.ndarray, " m"]
    crease: Float[np.ndarray, " m"]
    tip: Float[np.ndarray, " m"]


class Surface(NamedTuple):
    """Fixed tables of the drawn surface; drawn vertices are v hand, a arm, then e edge middles."""

    coarse_faces: Int[np.ndarray, "f 3"]
    edges: Int[np.ndarray, "e 2"]
    faces: Int[np.ndarray, "f4 3"]
    n_hand_faces: int  # The first faces are the hand, the others its forearm.
    rim: Int[np.ndarray, " r"]
    masks: Masks
    rest_m: Float[np.ndarray, "m 3"]  # Colour sticks to these places.


def wrist_rim(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " r"]:
    """The open edge of a surface as one loop of vertices, in the direction of its faces.

    Raises:
        ValueError: if the surface has not exactly one open edge.
    """
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in sides}
    following = {a: b for a, b in present if (b, a) not in present}
    if not following:
        raise ValueError("the hand's surface is closed: a forearm needs an open wrist to join")
    loop = [min(following)]
    while (succeeding := following[loop[-1]]) != loop[0]:
        loop.append(succeeding)
    if len(loop) != len(following):
        raise ValueError(
            f"the hand's surface has {len(following)} open edges but one loop has {len(loop)}: "
            "only the wrist may be open"
        )
    return np.array(loop, np.int32)


def arm_faces(rim: Int[np.ndarray, " r"], n_hand: int, rings: int) -> Int[np.ndarray, "f 3"]:
    """Triangles from the rim through `rings` rings to one last vertex that closes the arm."""
    r = len(rim)
    loops = np.concatenate([rim[None], n_hand + np.arange(rings * r).reshape(rings, r)])
    near, near_next = loops[:-1], np.roll(loops[:-1], -1, axis=1)
    far, far_next = loops[1:], np.roll(loops[1:], -1, axis=1)
    tube = [np.stack([near_next, near, far], -1), np.stack([near_next, far, far_next], -1)]
    end = np.stack([far_next[-1], far[-1], np.full(r, n_hand + rings * r)], -1)
    return np.concatenate([tube[0].reshape(-1, 3), tube[1].reshape(-1, 3), end])


def split_edges(
    faces: Int[np.ndarray, "f 3"], n_vertices: int
) -> tuple[Int[np.ndarray, "e 2"], Int[np.ndarray, "f4 3"]]:
    """Edges, and the four faces that replace each face once every edge has a middle vertex."""
    sides = np.stack([faces, np.roll(faces, -1, axis=1)], -1)
    edges, middle = np.unique(np.sort(sides.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
    ab, bc, ca = (n_vertices + middle.reshape(-1, 3)).T
    a, b, c = faces.T
    fine = np.stack([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]])
    return edges.astype(np.int32), fine.transpose(2, 0, 1).reshape(-1, 3).astype(np.int32)


@numba.njit(cache=True)
@no_type_check
def vertex_normals(vertices, faces):
    """Unit normals, faces weighted by area."""
    normals = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
        wx, wy, wz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
        for v in (a, b, c):
            normals[v, 0] += uy * wz - uz * wy
            normals[v, 1] += uz * wx - ux * wz
            normals[v, 2] += ux * wy - uy * wx
    for v in range(len(normals)):
        x, y, z = normals[v]
        scale = np.float32(1) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-20))
        for i in range(3):
            normals[v, i] *= scale
    return normals


@numba.njit(cache=True)
@no_type_check
def curved_middles(vertices, normals, edges):
    """The vertices followed by the middle of each edge's cubic."""
    n = len(vertices)
    out = np.empty((n + len(edges), 3), np.float32)
    out[:n] = vertices
    for e in range(len(edges)):
        a, b = edges[e]
        rise_a = rise_b = np.float32(0)
        for i in range(3):
            step = vertices[b, i] - vertices[a, i]
            rise_a += step * normals[a, i]
            rise_b -= step * normals[b, i]
        for i in range(3):
            straight = (vertices[a, i] + vertices[b, i]) * np.float32(0.5)
            bulge = (rise_a * normals[a, i] + rise_b * normals[b, i]) * np.float32(0.125)
            out[n + e, i] = straight - bulge
    return out


def refine(coarse_m: Float[np.ndarray, "k 3"], surface: Surface) -> Float[np.ndarray, "m 3"]:
    """Drawn vertices from posed hand and arm vertices."""
    normals = vertex_normals(coarse_m, surface.coarse_faces)
    return curved_middles(coarse_m, normals, surface.edges)


def _on_arm(values, rim, rings: int, fade: float):
    """Continues a value per hand vertex along the arm, where it fades."""
    along = values[rim][None] * np.linspace(1, fade, rings)[:, None]
    return np.concatenate([values, along.ravel(), [along[-1].mean()]])


def build_surface(hand: HandModel, details: HandDetails) -> Surface:
    """Joins a straight arm to the hand and prepares everything that no pose changes.

    Raises:
        ValueError: if the hand's surface is not open at the wrist and only there.
    """
    rim, rings, n_hand = wrist_rim(hand.faces), len(RING_REACH_M), len(hand.verts_m)
    faces = np.concatenate([hand.faces, arm_faces(rim, n_hand, rings)]).astype(np.int32)
    n_coarse = n_hand + rings * len(rim) + 1
    edges, fine = split_edges(faces, n_coarse)

    def spread(values, fade):
        coarse = _on_arm(values, rim, rings, fade)
        return np.concatenate([coarse, coarse[edges].mean(1)]).astype(np.float32)

    masks = Masks(
        palmar=spread(details.palmar, 0.45),
        nail=spread(details.nail, 0.0),
        knuckle=spread(details.knuckle, 0.0),
        crease=spread(details.crease, 0.0),
        tip=spread(details.tip, 0.0),
    )
    outward = np.sign(hand.verts_m[rim, 0].mean() - hand.verts_m[:, 0].mean())
    reach = np.concatenate([RING_REACH_M, RING_REACH_M[-1:]])
    tube = np.tile(hand.verts_m[rim], (rings, 1))
    arm = np.concatenate([tube, hand.verts_m[rim].mean(0)[None]])
    arm[:, 0] += outward * np.concatenate([np.repeat(reach[:-1], len(rim)), reach[-1:]])
    coarse = np.concatenate([hand.verts_m, arm]).astype(np.float32)
    rest = np.concatenate([coarse, coarse[edges].mean(1)]).astype(np.float32)
    return Surface(faces, edges, fine, 4 * len(hand.faces), rim, masks, rest)
