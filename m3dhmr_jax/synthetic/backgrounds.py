"""Procedural backgrounds: rooms, desks, wood, cloth, leaves, lights out of focus, plain walls.

Axes: h w of a square image, linear RGB. Everything is drawn flat, then blurred, as it lies outside
the depth of field.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from m3dhmr_jax.synthetic.clutter import add_clutter
from m3dhmr_jax.synthetic.color import linear_rgb
from m3dhmr_jax.synthetic.noise import sample_field

Image = Float[np.ndarray, "h w 3"]
CLOTH_MARGIN_PX = 16
DRAWN_SIDE_PX = 224  # Blur and offsets in pixels are those of an image this wide.
MAX_DRAWN_PX = 1024  # Larger images are enlarged from this: they are out of focus anyway.


def muted_colour(rng: np.random.Generator, low: float = 0.1, high: float = 0.9):
    """A mostly greyish sRGB colour in linear light, often a little warm."""
    grey = rng.uniform(low, high)
    warm = rng.normal(0.02, 0.035) * np.array([1.0, 0.1, -1.0])
    vivid = np.clip(rng.normal(0, 0.2 * rng.beta(1, 4), 3), -0.12, 0.12)
    return linear_rgb(np.clip(grey + warm + vivid, 0.02, 0.98)).astype(np.float32)


def _ramp(rng, side: int, strength: float) -> Float[np.ndarray, "h w"]:
    """Uneven illumination: a slope across the image and a soft bright spot."""
    axis = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]
    cx, cy, wide = *rng.uniform(-0.5, 0.5, 2), rng.uniform(0.3, 0.9)
    spot = np.exp(-((axis[None] - cx) ** 2 + (axis[:, None] - cy) ** 2) / (2 * wide**2))
    return np.exp(strength * (slope + 0.8 * spot - 0.4)).astype(np.float32)


def _blend(image: Image, colour, coverage: Float[np.ndarray, "h w"]) -> None:
    image += coverage[..., None] * (colour - image)


def _quad(rng, side: int, centre, size, angle: float):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size / 2
    corners = corners * (1 + rng.normal(0, 0.06, (4, 2)))
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return ((corners @ rotation + centre) * side * 16).astype(np.int32)


def _coverage(side: int, outline) -> Float[np.ndarray, "h w"]:
    canvas = np.zeros((side, side), np.uint8)  # OpenCV smooths edges only in bytes.
    cv2.fillPoly(canvas, [outline], 255, cv2.LINE_AA, 4)
    return canvas * np.float32(1 / 255)


def _put_with_shadow(rng, image: Image, outline, colour, shade_01: float) -> None:
    side = len(image)
    cover = _coverage(side, outline)
    scale = max(1.0, side / DRAWN_SIDE_PX)
    moved = np.array([[1, 0, scale * rng.uniform(-5, 5)], [0, 1, scale * rng.uniform(1, 6)]])
    cast = cv2.warpAffine(cover, moved, (side, side))
    shadow = cv2.GaussianBlur(cast, (0, 0), scale * rng.uniform(2, 6))
    image *= (1 - shade_01 * shadow)[..., None]
    texture = 1 + 0.12 * rng.random() * sample_field(rng, side)
    _blend(image, colour * (_ramp(rng, side, 0.5) * texture)[..., None], cover)


def wall(rng: np.random.Generator, side: int) -> Image:
    """A plain surface, unevenly lit and a little stained."""
    stain = 1 + rng.uniform(0.0, 0.06) * sample_field(rng, side)
    return muted_colour(rng, 0.2, 0.95) * (_ramp(rng, side, 1.0) * stain)[..., None]


def _rotated(field: Float[np.ndarray, "h w *c"], angle_deg: float):
    """The field rotated about its centre and enlarged, so that no corner is empty."""
    side = len(field)
    move = cv2.getRotationMatrix2D((side / 2, side / 2), angle_deg, 1.45)
    return cv2.warpAffine(field, move, (side, side), borderMode=cv2.BORDER_REFLECT)


def wood(rng: np.random.Generator, side: int) -> Image:
    """Planks with grain along them."""
    fine = cv2.resize(sample_field(rng, side, 0)[:, : side // 9], (side, side))
    slow = cv2.resize(sample_field(rng, side, 2)[:, : side // 5], (side, side))
    rings = np.sin(rng.uniform(2, 6) * slow + np.linspace(0, rng.uniform(10, 40), side)[:, None])
    width = rng.integers(side // 7, side // 2)
    row = (np.arange(side) + rng.integers(width)) // width
    planks = rng.normal(0, rng.uniform(0, 0.16), side)[row]
    joint = np.append(np.diff(row), 0) * rng.uniform(0, 0.6)
    tone = 0.09 * fine + rng.uniform(0.03, 0.12) * rings + (planks - joint)[:, None]
    light = linear_rgb(np.array([rng.uniform(0.4, 0.85)]))
    tint = light * np.array([1.0, rng.uniform(0.58, 0.78), rng.uniform(0.32, 0.6)])
    image = tint.astype(np.float32) * np.exp(tone).astype(np.float32)[..., None]
    return _rotated(image, rng.uniform(0, 180)) * _ramp(rng, side, 0.9)[..., None]


def cloth(rng: np.random.Generator, side: int) -> Image:
    """Folded fabric: slow shading across folds, a weave, sometimes a faint check."""
    angle_deg = rng.uniform(0, 180)
    wide = side + 2 * CLOTH_MARGIN_PX  # Slopes are wrong at the border.
    folds = cv2.resize(sample_field(rng, wide, 4)[:, : wide // 7], (wide, wide))
    folds = cv2.GaussianBlur(_rotated(folds, angle_deg), (0, 0), side / 45)
    slope = cv2.Sobel(folds, cv2.CV_32F, 1, 0) + cv2.Sobel(folds, cv2.CV_32F, 0, 1)
    slope = slope[CLOTH_MARGIN_PX:-CLOTH_MARGIN_PX, CLOTH_MARGIN_PX:-CLOTH_MARGIN_PX]
    slope = np.clip(slope / (slope.std() + 1e-6), -2.2, 2.2)
    weave = 1 + rng.uniform(0, 0.08) * sample_field(rng, side, 0)
    tone = np.exp(rng.uniform(0.08, 0.28) * slope) * weave
    if rng.random() < 0.3:
        step = rng.integers(side // 20, side // 6)
        rows = (np.arange(side) // step % 2).astype(np.float32)
        check = _rotated(rows[None] + rows[:, None], angle_deg)
        tone = tone * (1 + rng.uniform(0.05, 0.25) * (check - 1))
    image = muted_colour(rng, 0.08, 0.85) * (tone * _ramp(rng, side, 0.7))[..., None]
    return image.astype(np.float32)


def _leaf(centre, length: float, width: float, angle: float, half: int):
    """Outline of one half of a pointed leaf, in sixteenths of a pixel."""
    along = np.linspace(0, 1, 7)
    edge = np.stack([(along - 0.5) * length, half * width * np.sin(np.pi * along**0.8)], 1)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return ((edge @ rotation + centre) * 16).astype(np.int32)


def leaves(rng: np.random.Generator, side: int) -> Image:
    """Foliage: pointed leaves of green and brown over a dark ground, with gaps of sky."""
    ground = np.array([0.2, 0.24, 0.14]) * rng.uniform(0.6, 1.6)
    canvas = np.full((side, side, 3), ground * 255).astype(np.uint8)
    hang, size = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.08, 0.3)
    for _ in range(rng.integers(4)):
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        cv2.circle(
            canvas, centre, int(rng.integers(2, side // 10)), (214, 228, 240), -1, cv2.LINE_AA
        )
    for _ in range(rng.integers(90, 190)):
        green = rng.uniform(0.2, 0.72)
        colour = 255 * green * np.array([rng.uniform(0.55, 0.98), 1, rng.uniform(0.3, 0.65)])
        centre, angle = rng.uniform(-5, side + 5, 2), hang + rng.normal(0, 0.7)
        length = size * rng.uniform(0.5, 1.3)
        width = length * rng.uniform(0.1, 0.3)
        for half, shade in ((-1, 1.0), (1, rng.uniform(0.7, 0.95))):
            outline = _leaf(centre, length, width, angle, half)
            cv2.fillPoly(canvas, [outline], (colour * shade).tolist(), cv2.LINE_AA, 4)
    image = linear_rgb(canvas / 255).astype(np.float32)
    return image * _ramp(rng, side, 1.0)[..., None]


def bokeh(rng: np.random.Generator, side: int) -> Image:
    """Lights out of focus in front of a dark background."""
    canvas = (
        muted_colour(rng, 0.05, 0.4)
        * (_ramp(rng, side, 1.5) * np.exp(0.3 * sample_field(rng, side, 5)))[..., None]
    )
    canvas = canvas.astype(np.float32)
    radius = rng.uniform(0.02, 0.08) * side
    for _ in range(rng.integers(6, 30)):
        disc = np.zeros((side, side), np.float32)
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        cv2.circle(disc, centre, max(2, int(radius * rng.uniform(0.6, 1.2))), 1.0, -1, cv2.LINE_AA)
        colour = linear_rgb(np.clip(np.array([0.9, 0.75, 0.55]) + rng.normal(0, 0.2, 3), 0.1, 1))
        canvas += disc[..., None] * (colour * rng.uniform(0.1, 0.9)).astype(np.float32)
    return canvas


def room(rng: np.random.Generator, side: int) -> Image:
    """A wall above a floor or table, with furniture, frames and windows."""
    image = wall(rng, side)
    angle = rng.normal(0, 0.08)
    for _ in range(rng.integers(2, 8)):
        size = rng.uniform(0.08, 0.6, 2) * np.array([1, rng.uniform(0.6, 2)])
        outline = _quad(rng, side, rng.uniform(0, 1, 2), size, angle)
        bright = rng.random() < 0.15
        colour = muted_colour(rng, 0.9, 0.98) * 1.3 if bright else muted_colour(rng)
        _put_with_shadow(rng, image, outline, colour, rng.uniform(0.1, 0.5))
    if rng.random() < 0.7:
        floor = wood(rng, side) if rng.random() < 0.5 else wall(rng, side)
        level = rng.uniform(0.5, 0.9)
        cover = _coverage(
            side, _quad(rng, side, np.array([0.5, level + 1]), np.array([4.0, 2.0]), angle)
        )
        image += cover[..., None] * (floor - image)
    return image


def desk(rng: np.random.Generator, side: int) -> Image:
    """A table seen from above with papers, books and cups on it."""
    ground = (wood, cloth, wall)[rng.choice(3, p=[0.5, 0.2, 0.3])]
    image = ground(rng, side)
    for _ in range(rng.integers(1, 6)):
        centre, angle = rng.uniform(0, 1, 2), rng.uniform(0, np.pi)
        outline = _quad(rng, side, centre, rng.uniform(0.12, 0.55, 2), angle)
        if rng.random() < 0.3:
            radius = int(side * 16 * rng.uniform(0.04, 0.15))
            centre = tuple(int(v) for v in centre * side * 16)
            outline = cv2.ellipse2Poly(centre, (radius, radius), 0, 0, 360, 12)
        _put_with_shadow(rng, image, outline, muted_colour(rng), rng.uniform(0.2, 0.6))
    return image


KINDS = (room, desk, wood, cloth, leaves, bokeh, wall)
KIND_PROBABILITIES = (0.32, 0.18, 0.1, 0.12, 0.08, 0.06, 0.14)
# Range of each kind's defocus blur: its standard deviation in an image of 224 px.
BLUR_PX = ((1.8, 7.5), (0.8, 4.5), (0.5, 3.0), (0.5, 3.0), (1.2, 6.0), (1.5, 3.5), (0.5, 2.0))

CLUTTER_BLUR_PX = (0.0, 0.0, 0.0, 0.0, 0.4, 0.8)


def drop_shadow(
    rng: np.random.Generator,
    image: Image,
    covered: Bool[np.ndarray, "h w"],
    light_direction,
    scale: float = 1.0,
) -> Image:
    """The background with the soft shadow of the hand that `covered` marks.

    `scale`: of distance and softness; 1 is a hand of FreiHAND's size in pixels.
    """
    height, width, _ = image.shape
    distance_px = scale * rng.uniform(4, 26)
    move = np.array(
        [[1, 0, -distance_px * light_direction[0]], [0, 1, -distance_px * light_direction[1]]]
    )
    cast = cv2.warpAffine(
        covered.astype(np.float32), move, (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    small = cv2.resize(cast, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), 1 + distance_px * rng.uniform(0.08, 0.25))
    shadow = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return image * (1 - np.float32(rng.uniform(0.25, 0.75)) * shadow)[..., None]


def sample_background(
    rng: np.random.Generator, side: int, blur_scale: float = 1.0, is_cluttered: bool = False
) -> Image:
    """A random background, `side` pixels wide, in linear light.

    Args:
        blur_scale: of the defocus blur, as a fraction of the width; 1 is that of FreiHAND's narrow
            field of view, and a wider one shows less.
        is_cluttered: sharp things and people are in front of it.
    """
    kind = int(rng.choice(len(KINDS), p=KIND_PROBABILITIES))
    blur = rng.uniform(*BLUR_PX[kind])
    shrunk = 4 if is_cluttered else 2 if blur > 1.4 else 1  # Little is seen of a cluttered ground.
    coarse = min(side // shrunk, MAX_DRAWN_PX)
    image = KINDS[kind](rng, coarse).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), blur_scale * blur * coarse / DRAWN_SIDE_PX)
    if is_cluttered:
        image = add_clutter(rng, image, side)
        clutter_blur_px = rng.choice(CLUTTER_BLUR_PX) * blur_scale * side / DRAWN_SIDE_PX
        if clutter_blur_px > 0:
            image = cv2.GaussianBlur(image, (0, 0), clutter_blur_px)
    elif coarse != side:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
    level = float(image.mean())
    wanted = np.clip(level, 0.05, 0.55) * np.exp(rng.normal(0, 0.15))
    return np.clip(image * (wanted / (level + 1e-6)), 0.002, 1.6)
