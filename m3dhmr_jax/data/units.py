"""Whether points are those of hands in front of a camera, in metres.

Axes: b hands, p points.
"""

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError

LENGTH_M = (0.05, 0.3)  # Of a fist or an open hand.
DEPTH_M = (0.1, 5.0)
PREDICTED_DEPTH_M = (0.04, 25.0)  # Somewhat beyond the limits of root recovery.
N_CHECKED = 1000  # Of FreiHAND's 32,560 meshes, a copy in float64 would take half a gigabyte.
UNITS_M = {"millimetres": 1e-3, "centimetres": 1e-2}


def check_metres(
    title: str, points_m: Float[np.ndarray, "b p 3"], *, predicted: bool = False
) -> None:
    """Raises UserError if most hands are too small or large, or too near or far, to be in metres.

    Single hands may be anywhere. Predictions may be of any size that no other unit explains, as
    those of a network that has hardly learned. `title` names the file in the message.
    """
    if not len(points_m):
        return
    points_m = points_m[:: 1 + len(points_m) // N_CHECKED].astype(np.float64)
    middle_m = points_m.mean(axis=1, keepdims=True)
    tips = np.linalg.norm(points_m - middle_m, axis=2).argmax(axis=1)  # One end of the hand.
    tips_m = np.take_along_axis(points_m, tips[:, None, None], axis=1)
    length_m = float(np.median(np.linalg.norm(points_m - tips_m, axis=2).max(axis=1)))
    if not LENGTH_M[0] <= length_m <= LENGTH_M[1]:
        units = [u for u, m in UNITS_M.items() if LENGTH_M[0] <= length_m * m <= LENGTH_M[1]]
        if predicted and not units:
            return
        cause = f"the coordinates seem to be in {units[0]}" if units else "is it another unit?"
        raise UserError(
            f"{title}: most hands are {length_m:.3g} m long, but a hand has "
            f"{LENGTH_M[0]:g} to {LENGTH_M[1]:g} m: {cause}; convert them to metres"
        )
    depth_m = float(np.median(middle_m[:, 0, 2]))
    nearest_m, farthest_m = PREDICTED_DEPTH_M if predicted else DEPTH_M
    if not nearest_m <= depth_m <= farthest_m:
        cause = "they seem to be relative to the wrist: add its position"
        if depth_m > farthest_m:
            cause = "the position of the hand seems to be in another unit than the hand"
        elif depth_m <= -nearest_m:
            cause = "the z axis seems to point to the viewer: rotate them by 180 degrees about x"
        raise UserError(
            f"{title}: most hands are {depth_m:.3g} m in front of the camera, expected "
            f"{nearest_m:g} to {farthest_m:g} m in camera space (x right, y down, z forward): "
            f"{cause}"
        )
