"""Writes a folder of photos with several hands and their labels, for demonstrations and tests.

`truth.json` is a list with one object per photo: `file`, `K`, and `hands` with `handedness`,
`joints_m`, `verts_m`, `landmarks_px` and `bbox_px` (x, y, width, height; of the whole hand, also
where something hides it). It is written last.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel, load_builtin
from m3dhmr_jax.runtime.files import explain_disk_full
from m3dhmr_jax.synthetic.example import METRE_DIGITS
from m3dhmr_jax.synthetic.imaging import encode_image
from m3dhmr_jax.synthetic.photos import Photo, sample_photo, sample_placements
from m3dhmr_jax.synthetic.placement import Placement
from m3dhmr_jax.synthetic.recipe import FULL, Recipe
from m3dhmr_jax.synthetic.scene import prepare_assets
from m3dhmr_jax.synthetic.writer import make_folder

TRUTH = "truth.json"
SIZE_PX = (960, 720)
MIN_SIDE_PX, MAX_SIDE_PX = 128, 8192
PIXEL_DIGITS = 3
MAX_HANDS = 5
# No hand is larger than this fraction of the shorter side.
MAX_OF_SHORTER = 0.85


class Layout(NamedTuple):
    """Where hands appear in a photo of any size."""

    name: str
    # Handedness, centre as fractions of width and height, size as a fraction of the longer side.
    hands: tuple[tuple[str, float, float, float], ...]
    portrait: bool = False


# The first photos of every set.
LAYOUTS = (
    Layout("two_hands", (("right", 0.3, 0.42, 0.28), ("left", 0.7, 0.45, 0.3))),
    Layout("large", (("right", 0.5, 0.46, 0.6),)),
    Layout("small", (("left", 0.68, 0.56, 0.08),)),
    Layout(
        "four_hands",
        (
            ("right", 0.2, 0.26, 0.2),
            ("left", 0.75, 0.3, 0.26),
            ("left", 0.24, 0.74, 0.16),
            ("right", 0.7, 0.8, 0.12),
        ),
    ),
    Layout("portrait", (("left", 0.5, 0.36, 0.38), ("right", 0.55, 0.78, 0.2)), portrait=True),
    Layout("no_hand", ()),
)


def arrange(layout: Layout, size_px: tuple[int, int]) -> tuple[Placement, ...]:
    """The layout's hands in a photo of `size_px` (width, height)."""
    largest_px = MAX_OF_SHORTER * min(size_px)
    return tuple(
        Placement(side, (x * size_px[0], y * size_px[1]), min(size * max(size_px), largest_px))
        for side, x, y, size in layout.hands
    )


def photo_file(index: int, layout: str) -> str:
    """The name of a photo's file."""
    return f"{index:04d}_{layout}.jpg"


def layout_of_photo(
    rng: np.random.Generator, index: int, size_px: tuple[int, int]
) -> tuple[str, tuple[int, int], tuple[Placement, ...]]:
    """Name, size and hands of a set's photo number `index`; the first are those of LAYOUTS."""
    if index >= len(LAYOUTS):
        hands = int(rng.integers(1, MAX_HANDS + 1))
        return "random", size_px, sample_placements(rng, hands, size_px)
    layout = LAYOUTS[index]
    size_px = (size_px[1], size_px[0]) if layout.portrait else size_px
    return layout.name, size_px, arrange(layout, size_px)


def truth_row(file: str, photo: Photo) -> dict[str, Any]:
    """One photo's object in `truth.json`."""

    def rounded(values, digits: int):
        return np.round(np.asarray(values, np.float64), digits).tolist()

    return {
        "file": file,
        "K": rounded(photo.intrinsics, METRE_DIGITS),
        "hands": [
            {
                "handedness": hand.placement.handedness,
                "joints_m": rounded(hand.scene.joints_m, METRE_DIGITS),
                "verts_m": rounded(hand.scene.verts_m, METRE_DIGITS),
                "landmarks_px": rounded(hand.landmarks_px, PIXEL_DIGITS),
                "bbox_px": rounded(hand.box_px, PIXEL_DIGITS),
            }
            for hand in photo.hands
        ],
    }


def write_photos(
    out: Path,
    count: int = len(LAYOUTS),
    seed: int = 0,
    size_px: tuple[int, int] = SIZE_PX,
    recipe: Recipe = FULL,
    hand: HandModel | None = None,
) -> list[dict[str, Any]]:
    """Renders `count` photos and `truth.json` into `out`; the same seed gives the same bytes.

    The first are those of LAYOUTS: two hands, a large one, a small one, four, a photo in portrait
    format and one without a hand; all others have one to five hands at random places.

    Args:
        size_px: width and height, longer side first: portraits swap them.
        hand: default: the built-in hand.

    Returns:
        The rows of `truth.json`.

    Raises:
        UserError: for a number out of range, or if `out` is not writable.
        DiskFullError: while writing.
    """
    out = Path(out)
    if count < 1 or seed < 0:
        raise UserError(f"count={count} must be positive and seed={seed} must not be negative")
    if not (MIN_SIDE_PX <= size_px[1] <= size_px[0] <= MAX_SIDE_PX):
        raise UserError(
            f"size_px={size_px} must be (width, height) with the longer side first and sides of "
            f"{MIN_SIDE_PX} to {MAX_SIDE_PX} px"
        )
    assets = prepare_assets(hand or load_builtin())
    make_folder(out)
    (out / TRUTH).unlink(missing_ok=True)
    rows = []
    with explain_disk_full(out):
        for index in range(count):
            rng = np.random.default_rng([seed, index])
            name, photo_px, placements = layout_of_photo(rng, index, size_px)
            photo = sample_photo(rng, assets, placements, photo_px, recipe)
            file = photo_file(index, name)
            (out / file).write_bytes(encode_image(photo.image, photo.jpeg_quality))
            rows.append(truth_row(file, photo))
        (out / TRUTH).write_text(json.dumps(rows))
    return rows
