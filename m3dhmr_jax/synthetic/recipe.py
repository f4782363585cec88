"""What a synthetic set may contain: every range that changes how hard it is, in one place."""

import dataclasses

SIDE_PX = 224  # FreiHAND's picture side.
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Ranges of one kind of synthetic set; angles of joints are counted from the relaxed hand.

    Attributes:
        tilt_deg: None draws all rotations alike. A number draws palm or back views with the
            fingers up, leaning by at most this much, then turned in the picture plane.
        in_plane_deg: largest turn in the picture plane, unused where `tilt_deg` is None.
        occluder_probability: share of pictures with one or two things held or in front.
        sleeve_probability: share of pictures with a sleeve on the forearm.
        focal_px, root_depth_m: the camera.
        hand_box_px: longer side of the hand in the picture. FreiHAND's hands lie in the centred
            square of 130 px, which is all that evaluation looks at.
        shape_limit: shape coefficients are standard normal, clipped here.
        mcp_deg, pip_deg: flexion of the two lower joints of each finger; the last joint follows.

    Raises:
        ValueError: for an empty range, a probability outside 0..1 or a hand beyond the picture.
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
                raise ValueError(
                    f"Recipe.{name}=({low}, {high}) is empty: give the lower end first"
                )
        for name in ("occluder_probability", "sleeve_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Recipe.{name}={getattr(self, name)} must lie in 0..1")
        if self.hand_box_px[1] > SIDE_PX:
            raise ValueError(
                f"Recipe.hand_box_px={self.hand_box_px} exceeds the picture of {SIDE_PX} px: "
                "the hand would be cut off"
            )
        if min(self.focal_px[0], self.root_depth_m[0], self.hand_box_px[0]) <= 0:
            raise ValueError("Recipe: focal lengths, depths and hand boxes must be positive")


FULL = Recipe()
QUICKSTART = Recipe(tilt_deg=14.0, in_plane_deg=45.0, occluder_probability=0.0)
RECIPES = {"full": FULL, "quickstart": QUICKSTART}
