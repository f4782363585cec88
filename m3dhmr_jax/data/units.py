"""Whether points are those of hands in front of a camera, in metres.

Axes: b hands, p points.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError

LENGTH_M = (0.05, 0.3)  # Of a fist or an open hand.
DEPTH_M = (0.1, 5.0)
NEAREST_M, FARTHEST_M = 0.04, 25.0  # Beyond where root recovery places hands.
N_CHECKED = 1000  # Of FreiHAND's 32,560 meshes, a copy in float64 would take half a gigabyte.
UNITS_M = {"millimetres": 1e-3, "centimetres": 1e-2}


class UnitProblem(NamedTuple):
    """Why points are hardly those of hands in metres."""

    text: str
    # The likely cause; "" if there is none but that they are wrong.
    cause: str


def check_metres(title: str, points_m: Float[np.ndarray, "b p 3"]) -> None:
    """Raises UserError if most hands are too small or large, or too near or far, to be in metres.

    Single hands may be anywhere. `title` names the file in the message.
    """
    problem = find_unit_problem(points_m)
    if problem is not None:
        raise UserError(f"{title}: {problem.text}: {problem.cause or 'is it another unit?'}")


def find_unit_problem(points_m: Float[np.ndarray, "b p 3"]) -> UnitProblem | None:
    """What is implausible about most of the hands, if anything is."""
    if not len(points_m):
        return None
    points_m = points_m[:: 1 + len(points_m) // N_CHECKED].astype(np.float64)
    middle_m = points_m.mean(axis=1, keepdims=True)
    tips = np.linalg.norm(points_m - middle_m, axis=2).argmax(axis=1)  # One end of the hand.
    tips_m = np.take_along_axis(points_m, tips[:, None, None], axis=1)
    length_m = float(np.median(np.linalg.norm(points_m - tips_m, axis=2).max(axis=1)))
    if not LENGTH_M[0] <= length_m <= LENGTH_M[1]:
        units = [u for u, m in UNITS_M.items() if LENGTH_M[0] <= length_m * m <= LENGTH_M[1]]
        return UnitProblem(
            f"most hands are {length_m:.3g} m long, but a hand has {LENGTH_M[0]:g} to "
            f"{LENGTH_M[1]:g} m",
            f"the coordinates seem to be in {units[0]}; convert them to metres" if units else "",
        )
    depth_m = float(np.median(middle_m[:, 0, 2]))
    if DEPTH_M[0] <= depth_m <= DEPTH_M[1]:
        return None
    if depth_m > FARTHEST_M:
        cause = "the position of the hand seems to be in another unit than the hand"
    elif depth_m > NEAREST_M:
        cause = ""
    elif depth_m > -DEPTH_M[0]:
        cause = "they seem to be relative to the wrist: add its position"
    else:
        cause = "the z axis seems to point to the viewer: rotate them by 180 degrees about x"
    return UnitProblem(
        f"most hands are {depth_m:.3g} m in front of the camera, expected {DEPTH_M[0]:g} to "
        f"{DEPTH_M[1]:g} m in camera space (x right, y down, z forward)",
        cause,
    )
