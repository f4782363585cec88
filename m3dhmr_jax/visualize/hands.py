"""The hands to draw over one image. Axes: n landmarks, v vertices, f faces."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.visualize.mesh import MESH_COLOUR

# The first hand of an image is blue; the others differ from it and from skin.
HAND_COLOURS = (MESH_COLOUR, (0.95, 0.80, 0.62), (0.72, 0.90, 0.74), (0.88, 0.76, 0.94))

UNSURE_COLOUR = (0.72, 0.72, 0.72)


class HandDrawing(NamedTuple):
    """One hand in front of the camera."""

    landmarks_px: Float[np.ndarray, "n 2"]
    verts_cam_m: Float[np.ndarray, "v 3"]
    # Counter-clockwise seen from outside: those of a left hand are flipped.
    faces: Int[np.ndarray, "f 3"]
    colour: tuple[float, float, float] = MESH_COLOUR  # RGB in [0, 1].


def merge_meshes(
    hands: Sequence[HandDrawing],
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"], Float[np.ndarray, "f 3"]]:
    """All hands as one mesh, so that they occlude each other: vertices, faces, colours of faces."""
    first = np.cumsum([0] + [len(hand.verts_cam_m) for hand in hands])
    faces = [hand.faces + start for hand, start in zip(hands, first, strict=False)]
    colours = [np.tile(np.array(hand.colour), (len(hand.faces), 1)) for hand in hands]
    verts_m = np.concatenate([hand.verts_cam_m for hand in hands])
    return verts_m, np.concatenate(faces), np.concatenate(colours)
