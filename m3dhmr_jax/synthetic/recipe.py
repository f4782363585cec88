"""Recipes of synthetic datasets: every range that determines how hard they are, in one place.

The probabilities of what not all recipes have are 0 by default and then draw no random number (see
`happens`), so the images of older recipes stay the same.
"""

import dataclasses

import numpy as np

from m3dhmr_jax.errors import UserError

SIDE_PX = 224  # Width and height of FreiHAND's images.
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Ranges of one kind of synthetic dataset; joint angles are relative to the relaxed hand.

    Attributes:
        tilt_deg: None: rotations are uniform over SO(3). Otherwise palm or back views with the
            fingers up, tilted by at most this angle, then rotated in the image plane.
        in_plane_deg: largest rotation in the image plane; unused where `tilt_deg` is None.
        occluder_probability: probability of one or two occluders, held or in front of the hand.
        sleeve_probability: probability of a sleeve on the forearm.
        focal_px, root_depth_m: focal length, and depth of the wrist.
        hand_box_px: longer side of the hand's box in the image. FreiHAND's hands lie in the
            centred square of 130 px, which evaluation crops.
        shape_limit: shape coefficients are standard normal, clipped to +- this.
        mcp_deg, pip_deg: flexion of each finger's MCP and PIP joints; the DIP joint follows.
        upright_probability: probability that the hand's direction in the image, from wrist to
            middle finger, is within `upright_deg` of upright; otherwise it is any.
        gesture_probability: probability of a clean gesture: each finger straight or folded, thumbs
            up, a pinch, a flat hand.
        grip_probability: probability of a fist around an object as large as a bottle.
        ring_probability, wristband_probability: probability of a ring, and of a watch or bracelet
            where there is no sleeve.
        clutter_probability: probability of sharp things and other people in the background.
        is_lifelike: skin, lights and camera are those of everyday photos.
        keeps_coverage: the coverage of each image is written as well, to exchange backgrounds.

    Raises:
        UserError: for an empty range, a probability outside 0..1 or a hand larger than the image.
    """

    tilt_deg: float | None = None
    in_plane_deg: float = 180.0
    occluder_probability: float = 1 / 3
    sleeve_probability: float = 0.35
    focal_px: Range = (350.0, 500.0)
    root_depth_m: Range = (0.4, 1.0)
    hand_box_px: Range = (84.0, 126.0)
    shape_limit: float = 2.2
    mcp_deg: Range = (-18.0, 80.0)
    pip_deg: Range = (-6.0, 97.0)
    upright_probability: float = 0.0
    upright_deg: float = 50.0
    gesture_probability: float = 0.0
    grip_probability: float = 0.0
    ring_probability: float = 0.0
    wristband_probability: float = 0.0
    clutter_probability: float = 0.0
    is_lifelike: bool = False
    keeps_coverage: bool = False

    def __post_init__(self):
        for name in ("focal_px", "root_depth_m", "hand_box_px", "mcp_deg", "pip_deg"):
            low, high = getattr(self, name)
            if not low < high:
                raise UserError(f"Recipe.{name}=({low}, {high}) is empty: give the lower end first")
        for name, value in dataclasses.asdict(self).items():
            if name.endswith("_probability") and not 0 <= value <= 1:
                raise UserError(f"Recipe.{name}={value} must lie in 0..1")
        if not 0 < self.upright_deg <= 180:
            raise UserError(
                f"Recipe.upright_deg={self.upright_deg} must be above 0 and at most 180: "
                "directions are within this angle of upright"
            )
        if self.hand_box_px[1] > SIDE_PX:
            raise UserError(
                f"Recipe.hand_box_px={self.hand_box_px} exceeds the image of {SIDE_PX} px: "
                "the hand would be truncated"
            )
        if min(self.focal_px[0], self.root_depth_m[0], self.hand_box_px[0]) <= 0:
            raise UserError(
                f"Recipe.focal_px={self.focal_px}, root_depth_m={self.root_depth_m} and "
                f"hand_box_px={self.hand_box_px} must be positive"
            )


def happens(rng: np.random.Generator, probability: float) -> bool:
    """Whether something random happens; a probability of 0 draws no number."""
    return probability > 0 and bool(rng.random() < probability)


FULL = Recipe()
QUICKSTART = Recipe(tilt_deg=14.0, in_plane_deg=45.0, occluder_probability=0.0)
NATURAL = Recipe(
    occluder_probability=0.2,
    sleeve_probability=0.35,
    upright_probability=0.8,
    gesture_probability=0.8,
    grip_probability=0.06,
    ring_probability=0.12,
    wristband_probability=0.2,
    clutter_probability=0.85,
    is_lifelike=True,
    keeps_coverage=True,
)
RECIPES = {"full": FULL, "natural": NATURAL, "quickstart": QUICKSTART}
