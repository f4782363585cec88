"""Recipes of synthetic datasets: every range that determines how hard they are, in one place."""

import dataclasses

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

    def __post_init__(self):
        for name in ("focal_px", "root_depth_m", "hand_box_px", "mcp_deg", "pip_deg"):
            low, high = getattr(self, name)
            if not low < high:
                raise UserError(f"Recipe.{name}=({low}, {high}) is empty: give the lower end first")
        for name in ("occluder_probability", "sleeve_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"Recipe.{name}={getattr(self, name)} must lie in 0..1")
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


FULL = Recipe()
QUICKSTART = Recipe(tilt_deg=14.0, in_plane_deg=45.0, occluder_probability=0.0)
RECIPES = {"full": FULL, "quickstart": QUICKSTART}
