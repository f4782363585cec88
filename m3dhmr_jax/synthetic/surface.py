"""The rendered surface: hand and forearm as one closed mesh, subdivided once.

Axes: v hand vertices, a arm vertices, k both, m rendered vertices, f faces, f4 = 4 f, e edges,
r = rim of the wrist. Each edge is split at the midpoint of a cubic that respects the normals at its
ends (curved PN triangles, Vlachos et al. 2001), so the hand's own vertices, which are the labels,
stay on the rendered surface.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandDetails, HandModel
from m3dhmr_jax.visualize.raster import vertex_normals

# Distances between the arm's rings, from the wrist's rim on; the elbow is 250 mm from it.
RING_STEPS_MM = (6, 8, 10, 13, 16, 20, 25, 30, 35, 35, 25, 20, 18, 18, 20, 30, 50, 70, 80)
RING_DISTANCE_M = np.cumsum(RING_STEPS_MM) / 1000


class Masks(NamedTuple):
    """Regions of the skin, in [0, 1], per rendered vertex."""

    palmar: Float[np.ndarray, " m"]
    nail: Float[np.ndarray, " m"]
    knuckle: Float[np.ndarray, " m"]
    crease: Float[np.ndarray, " m"]
    tip: Float[np.ndarray, " m"]


class Surface(NamedTuple):
    """Topology and rest shape; rendered vertices are v hand, a arm, then e edge midpoints."""

    coarse_faces: Int[np.ndarray, "f 3"]
    edges: Int[np.ndarray, "e 2"]
    faces: Int[np.ndarray, "f4 3"]
    # The first faces are the hand, the others its forearm.
    n_hand_faces: int
    rim: Int[np.ndarray, " r"]
    masks: Masks
    # Texture coordinates: noise is evaluated at the rest position.
    rest_m: Float[np.ndarray, "m 3"]


def wrist_rim(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " r"]:
    """The open boundary of a surface as one loop of vertices, in the direction of its faces.

    Raises:
        UserError: if the surface does not have exactly one boundary loop.
    """
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in sides}
    following = {a: b for a, b in present if (b, a) not in present}
    if not following:
        raise UserError("the hand's surface is closed: a forearm needs an open wrist to join")
    loop = [min(following)]
    while (succeeding := following[loop[-1]]) != loop[0]:
        loop.append(succeeding)
    if len(loop) != len(following):
        raise UserError(
            f"the hand's surface has {len(following)} boundary edges but one loop has {len(loop)}: "
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
    """Edges, and the four faces that replace each face when every edge gets a midpoint vertex."""
    sides = np.stack([faces, np.roll(faces, -1, axis=1)], -1)
    edges, middle = np.unique(np.sort(sides.reshape(-1, 2), axis=1), axis=0, return_inverse=True)
    ab, bc, ca = (n_vertices + middle.reshape(-1, 3)).T
    a, b, c = faces.T
    fine = np.stack([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]])
    return edges.astype(np.int32), fine.transpose(2, 0, 1).reshape(-1, 3).astype(np.int32)


@numba.njit(cache=True)
@no_type_check
def curved_midpoints(vertices, normals, edges):
    """The midpoint of each edge's cubic."""
    out = np.empty((len(edges), 3), np.float32)
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
            out[e, i] = straight - bulge
    return out


def refine(coarse_m: Float[np.ndarray, "k 3"], surface: Surface) -> Float[np.ndarray, "m 3"]:
    """Rendered vertices from posed hand and arm vertices."""
    normals = vertex_normals(coarse_m, surface.coarse_faces)
    return np.concatenate([coarse_m, curved_midpoints(coarse_m, normals, surface.edges)])


def _on_arm(values, rim, rings: int, fade: float):
    """Extends a value per hand vertex along the arm, where it fades."""
    along = values[rim][None] * np.linspace(1, fade, rings)[:, None]
    return np.concatenate([values, along.ravel(), [along[-1].mean()]])


def build_surface(hand: HandModel, details: HandDetails) -> Surface:
    """Joins a straight arm to the hand and computes everything independent of the pose.

    Raises:
        UserError: if the hand's surface is not open at the wrist and only there.
    """
    rim, rings, n_hand = wrist_rim(hand.faces), len(RING_DISTANCE_M), len(hand.verts_m)
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
    distance_m = np.concatenate([RING_DISTANCE_M, RING_DISTANCE_M[-1:]])
    tube = np.tile(hand.verts_m[rim], (rings, 1))
    arm = np.concatenate([tube, hand.verts_m[rim].mean(0)[None]])
    arm[:, 0] += outward * np.concatenate([np.repeat(distance_m[:-1], len(rim)), distance_m[-1:]])
    coarse = np.concatenate([hand.verts_m, arm]).astype(np.float32)
    rest = np.concatenate([coarse, coarse[edges].mean(1)]).astype(np.float32)
    return Surface(faces, edges, fine, 4 * len(hand.faces), rim, masks, rest)
