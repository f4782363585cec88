"""Shaded tubes drawn into a flat image: the round things of cluttered backgrounds.

A tube is a segment with a radius at either end. It is lit as if it were round, has a second colour
as a band or as stripes, and casts a soft shadow on what lies below it.

Axes: k tubes, h w pixels, c = 2 or 3 coordinates. Colours are linear RGB, lengths are in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float

SHADOW_REACH = 0.5  # Width of a shadow's soft edge, relative to the tube's radius.
MAX_SHADOW_PX = 6.0
Values = Sequence[float] | Float[np.ndarray, "c"]


class Tube(NamedTuple):
    """One tube; the second colour is unused by default."""

    start: Values
    stop: Values
    radius: Values
    colour: Values
    second: Values = (0.0, 0.0, 0.0)
    # Where the second colour is, as fractions of the way from start to stop.
    band: tuple[float, float] = (2.0, 2.0)
    # Width of stripes along the tube in its two colours; 0 for none.
    stripe: float = 0.0
    gloss: float = 0.1
    # Depth of the texture: 0.1 is rough cloth.
    grain: float = 0.04
    round_ends: bool = True
    # Darkness of the shadow.
    shadow: float = 0.4


def _parameters(tube: Tube) -> Float[np.ndarray, "19"]:
    own = tube.stripe, tube.gloss, tube.grain, tube.round_ends, tube.shadow
    parts = tube.start, tube.stop, tube.radius, tube.colour, tube.second, tube.band, own
    return np.concatenate(parts, dtype=np.float32, casting="unsafe")


@numba.njit(cache=True, fastmath=True, inline="always")
@no_type_check
def _outside(px, py, ax, ay, ux, uy, length, ra, rb, round_ends):
    """Distance to the tube (negative inside), position along it, offset across it and radius."""
    along = (px - ax) * ux + (py - ay) * uy
    across = -(px - ax) * uy + (py - ay) * ux
    fraction = min(max(along / length, np.float32(0)), np.float32(1))
    beyond = along - fraction * length
    radius = ra + fraction * (rb - ra)
    if round_ends:
        distance = np.sqrt(across * across + beyond * beyond) - radius
    else:
        distance = max(abs(across) - radius, abs(beyond) - np.float32(0.5))
    return distance, fraction, across, beyond, radius


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _draw(image, tubes, texture, light, shadow_x, shadow_y):
    height, width, _ = image.shape
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    for k in range(len(tubes)):
        t = tubes[k]
        ax, ay, bx, by, ra, rb = t[0], t[1], t[2], t[3], t[4], t[5]
        band_low, band_high, stripe, gloss, grain = t[12], t[13], t[14], t[15], t[16]
        round_ends, darkness = t[17] > 0, t[18]
        length = max(np.sqrt((bx - ax) ** 2 + (by - ay) ** 2), np.float32(1e-3))
        ux, uy = (bx - ax) / length, (by - ay) / length
        largest = max(ra, rb)
        soft = min(np.float32(SHADOW_REACH) * largest, np.float32(MAX_SHADOW_PX)) + one
        margin = largest + soft + max(abs(shadow_x), abs(shadow_y)) * soft + one
        left, right = max(0, int(min(ax, bx) - margin)), min(width, int(max(ax, bx) + margin) + 1)
        top, bottom = max(0, int(min(ay, by) - margin)), min(height, int(max(ay, by) + margin) + 1)
        for y in range(top, bottom):
            for x in range(left, right):
                distance, fraction, across, beyond, radius = _outside(
                    np.float32(x), np.float32(y), ax, ay, ux, uy, length, ra, rb, round_ends
                )
                cover = min(max(half - distance, zero), one)
                if cover < one and darkness > 0:
                    away = _outside(
                        x - shadow_x * soft, y - shadow_y * soft,
                        ax, ay, ux, uy, length, ra, rb, round_ends,
                    )[0]  # fmt: skip
                    shade = min(max(half - half * away / soft, zero), one)
                    keep = one - darkness * shade * shade
                    for c in range(3):
                        image[y, x, c] *= keep
                if cover <= 0:
                    continue
                scale = one / max(radius, np.float32(0.5))
                nx, ny = -across * uy * scale, across * ux * scale
                if round_ends:
                    nx, ny = nx + beyond * ux * scale, ny + beyond * uy * scale
                nz = np.sqrt(max(one - nx * nx - ny * ny, np.float32(0.02)))
                facing = max(nx * light[0] + ny * light[1] + nz * light[2], zero)
                bright = np.float32(0.3) + np.float32(0.85) * facing
                bright *= one + grain * texture[y, x]
                shine = gloss * facing ** (np.float32(6) + np.float32(50) * gloss)
                first = 6
                if band_low < fraction < band_high:
                    first = 9
                if stripe > 0 and int(fraction * length / stripe) % 2 == 1:
                    first = 9
                for c in range(3):
                    value = t[first + c] * bright + shine
                    image[y, x, c] += cover * (value - image[y, x, c])


def draw_tubes(
    rng: np.random.Generator,
    image: Float[np.ndarray, "h w 3"],
    tubes: Sequence[Tube],
    texture: Float[np.ndarray, "h w"],
) -> None:
    """Draws tubes into `image`, each over those before it, all in the same random light."""
    rows = np.stack([_parameters(tube) for tube in tubes])
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.95)
    level = np.sqrt(1 - height**2)
    light = np.array([level * np.cos(angle), level * np.sin(angle), height], np.float32)
    shadow_x, shadow_y = (-0.9 * light[:2]).tolist()
    _draw(image, rows, texture, light, np.float32(shadow_x), np.float32(shadow_y))
