"""Sharp, busy backgrounds: bars, cables, cans, print, flowers, leaves, boxes, windows, people.

Flat things are drawn first, round ones and people over them. Everything stays sharp up to the
hand's edge, as phones and webcams show it.

Axes: h w of a square image, s side of its smaller ground, p q of a patch. Flat things are drawn in
bytes that hold the square root of linear RGB, as OpenCV smooths edges only in bytes.
"""

import itertools
import string
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.synthetic.noise import sample_field
from m3dhmr_jax.synthetic.people import sample_person
from m3dhmr_jax.synthetic.tubes import Tube, draw_tubes

Canvas = UInt8[np.ndarray, "h w 3"]
Colour = Float[np.ndarray, "3"]
# Linear values of a canvas's bytes.
LINEAR = ((np.arange(256) / 255) ** 2).astype(np.float32)
FONTS = (0, 2, 3, 4, 6)  # OpenCV's Hershey fonts that are not script.
LETTERS = np.array(list(string.ascii_letters + string.digits + " .,-"))
FIXED = 4  # Fractional bits of OpenCV's coordinates.


def any_colour(rng: np.random.Generator) -> Colour:
    """A linear colour from nearly black to nearly white, grey more often than vivid."""
    grey = rng.uniform(0.03, 0.99)
    vivid = 0.4 * rng.beta(0.7, 3) * rng.normal(size=3)
    vivid[1] += 0.5 * (vivid[0] + vivid[2])  # Few things are violet.
    return np.clip(grey + vivid, 0.02, 1) ** 2


def _ink(rng: np.random.Generator) -> list[float]:
    """A colour in bytes of a canvas."""
    return (255 * np.sqrt(any_colour(rng))).tolist()


def _fixed(points_px) -> np.ndarray:
    return np.round(np.asarray(points_px) * 2**FIXED).astype(np.int32, order="C")


def _fill(canvas: UInt8[np.ndarray, "h w *c"], outline_px, colour) -> None:
    cv2.fillPoly(canvas, [_fixed(outline_px)], colour, cv2.LINE_AA, FIXED)


def _rotation(angle_rad: float) -> Float[np.ndarray, "2 2"]:
    return np.array(
        [[np.cos(angle_rad), np.sin(angle_rad)], [-np.sin(angle_rad), np.cos(angle_rad)]]
    )


def _often_level(rng: np.random.Generator) -> float:
    """An angle: things stand or lie more often than they lean."""
    return float(rng.integers(4) * np.pi / 2 + rng.normal(0, rng.choice([0.04, 0.5])))


def _stamp(
    rng: np.random.Generator,
    canvas: Canvas,
    patch: UInt8[np.ndarray, "p q 3"],
    longest_px: float,
) -> None:
    """Puts a small picture onto the canvas, turned, sheared and `longest_px` long."""
    side, (height, width) = len(canvas), patch.shape[:2]
    shape = _rotation(_often_level(rng)) @ np.array([[1, rng.normal(0, 0.15)], [0, 1]])
    shape *= longest_px / max(height, width)
    centre = rng.uniform(-0.1, 1.1, 2) * side
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array([width, height]) / 2
    outline = corners @ shape.T + centre
    low = np.clip(np.floor(outline.min(0)), 0, side).astype(int)
    high = np.clip(np.ceil(outline.max(0)) + 1, 0, side).astype(int)
    size = tuple((high - low).tolist())
    if min(size) < 2:
        return
    matrix = np.concatenate([shape, (centre - low - shape @ [width / 2, height / 2])[:, None]], 1)
    # Where the patch is much finer than the canvas, it is smoothed first.
    zoom = np.sqrt(abs(np.linalg.det(shape)))
    if zoom < 0.75:
        patch = cv2.GaussianBlur(patch, (0, 0), 0.4 / zoom)
    moved = cv2.warpAffine(patch, matrix, size, flags=cv2.INTER_LINEAR)
    cover = np.zeros((size[1], size[0]), np.uint8)
    _fill(cover, outline - low, 255)
    part = canvas[low[1] : high[1], low[0] : high[0]]
    weight = cover[..., None].astype(np.float32) / 255
    part[:] = (part + weight * (moved.astype(np.float32) - part)).astype(np.uint8)


def printed_page(rng: np.random.Generator, canvas: Canvas) -> None:
    """A page, poster, label or screen: headings, lines of text, a picture."""
    height, width = (int(n) for n in rng.integers(70, 200, 2))
    patch = np.full((height, width, 3), _ink(rng), np.uint8)
    colour, y = _ink(rng), int(rng.integers(8, 30))
    while y < height:
        size = float(rng.choice([0.3, 0.4, 0.55, 1.0, 1.6], p=[0.3, 0.3, 0.2, 0.12, 0.08]))
        if rng.random() < 0.12:
            colour = _ink(rng)
        text = "".join(rng.choice(LETTERS, rng.integers(4, 26)))
        thick = 1 if size < 0.5 else int(rng.integers(1, 4))
        at = int(rng.integers(0, width // 4)), y
        cv2.putText(patch, text, at, int(rng.choice(FONTS)), size, colour, thick, cv2.LINE_AA)
        y += int(30 * size * rng.uniform(0.8, 1.6)) + 3
    for _ in range(rng.integers(0, 3)):
        low = rng.integers(0, [width, height])
        high = low + rng.integers(8, 80, 2)
        cv2.rectangle(patch, tuple(low.tolist()), tuple(high.tolist()), _ink(rng), -1)
    if rng.random() < 0.3:
        cv2.rectangle(patch, (0, 0), (width - 1, height - 1), _ink(rng), int(rng.integers(2, 9)))
    _stamp(rng, canvas, patch, len(canvas) * rng.uniform(0.25, 1.1))


def panel(rng: np.random.Generator, canvas: Canvas) -> None:
    """Cells in rows: keyboard, tiles, shelf, window panes, a grille."""
    rows, columns = rng.integers(1, 9, 2)
    cell = rng.integers(10, 40, 2)
    gap = int(rng.integers(1, 7))
    patch = np.full((rows * cell[0] + gap, columns * cell[1] + gap, 3), _ink(rng), np.uint8)
    colours = [_ink(rng) for _ in range(rng.integers(1, 4))]
    for row in range(rows):
        for column in range(columns):
            low = column * cell[1] + gap, row * cell[0] + gap
            high = (column + 1) * cell[1] - 1, (row + 1) * cell[0] - 1
            colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.8, 1.1)
            cv2.rectangle(patch, low, high, np.clip(colour, 0, 255).tolist(), -1)
    _stamp(rng, canvas, patch, len(canvas) * rng.uniform(0.2, 1.3))


def window(rng: np.random.Generator, canvas: Canvas) -> None:
    """A bright opening with a frame, sometimes with blinds."""
    height, width = (int(n) for n in rng.integers(60, 160, 2))
    bright = np.clip(rng.normal(235, 20) + rng.normal(0, 10, 3), 120, 255)
    patch = np.full((height, width, 3), bright, np.uint8)
    frame = _ink(rng)
    if rng.random() < 0.4:
        step = int(rng.integers(4, 14))
        for y in range(0, height, step):
            cv2.line(patch, (0, y), (width, y), frame, max(1, step // 3), cv2.LINE_AA)
    for fraction in np.linspace(0, 1, rng.integers(2, 5)):
        x = int(fraction * width)
        cv2.line(patch, (x, 0), (x, height), frame, int(rng.integers(3, 9)), cv2.LINE_AA)
    cv2.rectangle(patch, (0, 0), (width - 1, height - 1), frame, int(rng.integers(4, 12)))
    _stamp(rng, canvas, patch, len(canvas) * rng.uniform(0.4, 1.3))


def box(rng: np.random.Generator, canvas: Canvas) -> None:
    """A box or piece of furniture seen from above or below: three faces in different light."""
    side = len(canvas)
    centre, colour = rng.uniform(0, 1, 2) * side, np.array(_ink(rng))
    edges = rng.uniform(0.08, 0.45, (3, 1)) * side * _rotation(_often_level(rng))[[0, 1, 0]]
    edges[2] = rng.uniform(0.05, 0.3) * side * _rotation(rng.uniform(0, 2 * np.pi))[0]
    for shade, (a, b) in zip(
        rng.permutation([1.0, 0.8, 0.55]), ((0, 1), (0, 2), (1, 2)), strict=True
    ):
        outline = centre + np.array([0 * edges[a], edges[a], edges[a] + edges[b], edges[b]])
        _fill(canvas, outline, (colour * shade).tolist())


def flowers(rng: np.random.Generator, canvas: Canvas) -> None:
    """Blossoms with petals around a centre; small ones are dots and sprinkles."""
    side = len(canvas)
    colours = [_ink(rng) for _ in range(3)]
    petals, count = int(rng.integers(4, 9)), int(rng.integers(4, 30))
    radius = side * rng.uniform(0.01, 0.06) * rng.uniform(0.6, 1.4, (count, 1, 1))
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.arange(petals) * (2 * np.pi / petals)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    centres = rng.uniform(0, 1, (count, 1, 2)) * side
    across = 0.4 * direction[..., ::-1] * [-1, 1]
    # From the centre out: a diamond whose corners look round at this size.
    petal = [0 * direction, 0.6 * direction + across, 1.4 * direction, 0.6 * direction - across]
    outlines = _fixed(centres[:, :, None] + radius[..., None] * np.stack(petal, 2))
    spots, sizes = _fixed(centres[:, 0]).tolist(), _fixed(0.4 * radius[:, 0, 0]).tolist()
    for flower, spot, size in zip(outlines, spots, sizes, strict=True):
        colour = colours[rng.integers(2)]
        for outline in flower:
            cv2.fillPoly(canvas, [outline], colour, cv2.LINE_AA, FIXED)
        cv2.circle(canvas, spot, size, colours[2], -1, cv2.LINE_AA, FIXED)


def foliage(rng: np.random.Generator, canvas: Canvas) -> None:
    """Pointed leaves or blades of grass, green or of any colour."""
    side, count = len(canvas), int(rng.integers(15, 60))
    tint = np.array([0.65, 0.85, 0.45]) if rng.random() < 0.7 else np.sqrt(any_colour(rng))
    length = side * rng.uniform(0.05, 0.3) * rng.uniform(0.5, 1.3, count)
    angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.7, count)
    forward = np.stack([np.cos(angle), np.sin(angle)], -1) * length[:, None]
    across = forward[:, ::-1] * [-1, 1] * rng.uniform(0.06, 0.15, (count, 1))
    along = np.linspace(0, 1, 6)[:, None, None]
    edge = rng.uniform(0, 1, (count, 2)) * side + (along - 0.5) * forward
    bulge = np.sin(np.pi * along**0.8) * across
    halves = _fixed(np.stack([edge - bulge, edge + bulge]).transpose(2, 0, 1, 3))
    light = 255 * rng.uniform(0.15, 0.9, (count, 1, 1)) * rng.uniform(0.75, 1.1, (count, 2, 1))
    for leaf, colours in zip(halves, np.clip(light * tint, 0, 255).tolist(), strict=True):
        for outline, colour in zip(leaf, colours, strict=True):
            cv2.fillPoly(canvas, [outline], colour, cv2.LINE_AA, FIXED)


def shape(rng: np.random.Generator, canvas: Canvas) -> None:
    """A patch of another colour with straight edges: clothes, paper, a corner of something."""
    side = len(canvas)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
    radius = side * rng.uniform(0.04, 0.5) * rng.uniform(0.5, 1, len(angles))
    around = np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]
    _fill(canvas, rng.uniform(0, 1, 2) * side + around, _ink(rng))


def bars(rng: np.random.Generator, side: int) -> list[Tube]:
    """Parallel rods, slats, pens, books or pipes."""
    angle, centre = _often_level(rng), rng.uniform(0, 1, 2) * side
    forward, across = _rotation(angle)
    width = side * rng.uniform(0.008, 0.06)
    gap = width * rng.uniform(1.0, 4.0)
    length = side * rng.choice([0.25, 0.6, 3.0])
    colours = [any_colour(rng) for _ in range(rng.integers(1, 4))]
    gloss, ends = rng.choice([0.05, 0.3, 0.8]), bool(rng.random() < 0.5)
    tubes = []
    for i in range(rng.integers(1, 10)):
        middle = centre + across * gap * i
        start, stop = middle - forward * length / 2, middle + forward * length / 2
        tubes.append(
            Tube(
                start,
                stop,
                (width / 2, width / 2),
                colours[rng.integers(len(colours))],
                gloss=gloss,
                round_ends=ends,
            )
        )
    return tubes


def cable(rng: np.random.Generator, side: int) -> list[Tube]:
    """A cable, strap or branch: a smooth curve of short tubes."""
    control = rng.uniform(-0.1, 1.1, (4, 2)) * side
    t = np.linspace(0, 1, 18)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    points = weights @ control
    radius, colour = side * rng.uniform(0.003, 0.022), any_colour(rng)
    return [
        Tube(a, b, (radius, radius), colour, gloss=0.2, shadow=0.0)
        for a, b in itertools.pairwise(points)
    ]


def can(rng: np.random.Generator, side: int) -> list[Tube]:
    """A can, bottle, mug or jar, often with a label, sometimes with a neck and cap."""
    forward, _ = _rotation(_often_level(rng))
    radius = side * rng.uniform(0.025, 0.14)
    length = radius * rng.uniform(1.5, 5)
    start = rng.uniform(0, 1, 2) * side
    stop = start + forward * length
    low = rng.uniform(0, 0.5)
    body = Tube(
        start, stop, (radius, radius), any_colour(rng), any_colour(rng),
        band=(low, low + rng.uniform(0.1, 0.8)), gloss=float(rng.choice([0.1, 0.4, 0.9])),
        round_ends=bool(rng.random() < 0.4),
    )  # fmt: skip
    if rng.random() < 0.5:
        return [body]
    neck = stop + forward * radius * rng.uniform(0.6, 1.6)
    cap = neck + forward * radius * 0.5
    narrow = radius * rng.uniform(0.3, 0.5)
    return [
        body,
        Tube(stop, neck, (radius, narrow), body.colour, gloss=body.gloss),
        Tube(neck, cap, (narrow, narrow), any_colour(rng), round_ends=False),
    ]


Flat = Callable[[np.random.Generator, Canvas], None]
Round = Callable[[np.random.Generator, int], list[Tube]]
FLAT: tuple[Flat, ...] = (printed_page, panel, window, box, flowers, foliage, shape)
FLAT_PROBABILITIES = (0.22, 0.16, 0.08, 0.16, 0.07, 0.08, 0.23)
ROUND: tuple[Round, ...] = (bars, cable, can)
ROUND_PROBABILITIES = (0.45, 0.3, 0.25)
PERSON_PROBABILITY = 0.6


def add_clutter(
    rng: np.random.Generator, ground: Float[np.ndarray, "s s 3"], side: int
) -> Float[np.ndarray, "h w 3"]:
    """Things and people in front of `ground` (linear light), which is enlarged to `side` px."""
    small = (255 * np.sqrt(np.clip(ground, 0, 1))).astype(np.uint8)
    canvas = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(2, 9)):
        FLAT[rng.choice(len(FLAT), p=FLAT_PROBABILITIES)](rng, canvas)
    texture = sample_field(rng, side)
    rough, uneven = (np.float32(rng.uniform(0, high)) for high in (0.1, 0.3))
    tone = 1 + rough * texture + uneven * sample_field(rng, side, 5)
    image = cv2.LUT(canvas, LINEAR) * tone[..., None]
    tubes = []
    for _ in range(rng.integers(0, 6)):
        tubes += ROUND[rng.choice(len(ROUND), p=ROUND_PROBABILITIES)](rng, side)
    while rng.random() < PERSON_PROBABILITY:
        tubes += sample_person(rng, side)
    if tubes:
        draw_tubes(rng, image, tubes, texture)
    return image
