"""Other people in the background: bare arms, hands, faces, torsos, as shaded tubes.

A network that has only seen the hand's own skin takes all skin for the hand. Lengths are in pixels
of a square image; colours are linear RGB.
"""

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.synthetic.skin import sample_tone
from m3dhmr_jax.synthetic.tubes import Tube

Point = Float[np.ndarray, "2"]
Colour = Float[np.ndarray, "3"]


def _turned(angle_rad: float, vector=(1.0, 0.0)) -> Point:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def _limb(start, stop, radius, skin: Colour, shadow: float = 0.4) -> Tube:
    return Tube(start, stop, radius, skin, gloss=0.12, grain=0.05, shadow=shadow)


def _garment(start, stop, radius, colours: tuple[Colour, Colour], stripe: float) -> Tube:
    """Cloth of one colour, or of two in stripes."""
    return Tube(start, stop, radius, *colours, stripe=stripe, gloss=0.0, grain=0.1)


def _cloth_colour(rng) -> Float[np.ndarray, "3"]:
    return np.clip(rng.uniform(0.03, 0.95) + rng.normal(0, 0.18, 3), 0.02, 1) ** 2


def arm(rng: np.random.Generator, at: Point, size: float, skin, angle_rad: float) -> list[Tube]:
    """A forearm from `at` in a direction, `size` px long, perhaps in a sleeve."""
    wrist = size * rng.uniform(0.08, 0.12)
    elbow = at + size * _turned(angle_rad)
    tubes = [_limb(at, elbow, (wrist, wrist * 1.6), skin)]
    if rng.random() < 0.4:
        cuff = at + size * rng.uniform(0.1, 0.7) * _turned(angle_rad)
        stripe = wrist * rng.uniform(0.2, 0.8) if rng.random() < 0.3 else 0.0
        colours = _cloth_colour(rng), _cloth_colour(rng)
        sleeve = _garment(cuff, elbow, (wrist * 1.5, wrist * 1.9), colours, stripe)
        tubes.append(sleeve._replace(round_ends=False))
    return tubes


def hand(rng: np.random.Generator, at: Point, size: float, skin, angle_rad: float) -> list[Tube]:
    """A hand whose wrist is at `at`, `size` px long with its fingers stretched out."""
    forward, across = _turned(angle_rad), _turned(angle_rad, (0.0, rng.choice([-1.0, 1.0])))
    knuckles = at + 0.5 * size * forward
    palm = [
        _limb(
            at + 0.06 * size * i * across, knuckles + 0.105 * size * i * across,
            (0.1 * size, 0.085 * size), skin, shadow=0.1,
        )
        for i in (-1.5, -0.5, 0.5, 1.5)
    ]  # fmt: skip
    curl, spread = rng.uniform(0.25, 1), rng.uniform(0, 0.12)
    tubes = []
    for i, length in zip((-1.5, -0.5, 0.5, 1.5), (0.42, 0.48, 0.45, 0.35), strict=True):
        start = knuckles + 0.105 * size * i * across
        own = length * size * (curl if rng.random() < 0.8 else rng.uniform(0.2, 1))
        direction = _turned(angle_rad) + spread * i * across
        width = 0.055 * size
        tip = start + own * direction
        tubes.append(_limb(start, tip, (width, 0.85 * width), skin))
        if rng.random() < 0.4:
            nail = np.clip(np.array(skin) * [1.1, 1.0, 1.0] + 0.05, 0, 1)
            end = tip + 0.3 * width * direction
            tubes.append(
                Tube(tip, end, (0.5 * width, 0.5 * width), nail, gloss=0.5, grain=0.0, shadow=0.0)
            )
    base = at + 0.12 * size * forward - 0.16 * size * across
    thumb = _turned(angle_rad) * rng.uniform(0.3, 1) - across * rng.uniform(0.1, 0.8)
    tubes.append(_limb(base, base + 0.38 * size * thumb, (0.09 * size, 0.055 * size), skin))
    return palm + tubes


def forearm_and_hand(rng: np.random.Generator, side: int) -> list[Tube]:
    """Another arm with its hand, from somewhere at the border."""
    at, size = rng.uniform(0, 1, 2) * side, side * rng.uniform(0.2, 0.65)
    angle, skin = rng.uniform(0, 2 * np.pi), sample_tone(rng)[1]
    bend = rng.normal(0, 0.3)
    return arm(rng, at, 2 * size, skin, angle + np.pi + bend) + hand(rng, at, size, skin, angle)


def bare_limb(rng: np.random.Generator, side: int) -> list[Tube]:
    """An arm or leg that crosses the image."""
    at, size = rng.uniform(0, 1, 2) * side, side * rng.uniform(0.5, 1.6)
    return arm(rng, at, size, sample_tone(rng)[1], rng.uniform(0, 2 * np.pi))


def head(rng: np.random.Generator, at: Point, size: float, skin, angle_rad: float) -> list[Tube]:
    """A face whose chin points along the angle; `size` is its height."""
    down, right = _turned(angle_rad), _turned(angle_rad, (0.0, 1.0))
    hair = np.clip(rng.choice([0.02, 0.05, 0.2, 0.5]) * np.array([1.1, 0.9, 0.7]), 0, 1)
    wide = 0.36 * size
    turn = rng.normal(0, 0.12) * size  # Looking to a side.

    def mark(x, y, dx, radius, colour, shadow=0.0):
        middle = at + (x * size + turn) * right + y * size * down
        half, radii = dx * size * right, (radius * size, radius * size)
        return Tube(middle - half, middle + half, radii, colour, grain=0.0, shadow=shadow)

    dark, red = np.array(skin) * 0.35, np.array(skin) * [0.9, 0.5, 0.5]
    tubes = [
        Tube(
            at - 0.22 * size * down, at + rng.uniform(-0.1, 0.5) * size * down,
            (1.2 * wide, 1.2 * wide), hair, gloss=0.2, grain=0.3,
        ),
        _limb(at - 0.1 * size * down, at + 0.2 * size * down, (wide, 0.85 * wide), skin),
    ]  # fmt: skip
    for x in (-0.15, 0.15):
        tubes += [
            mark(x, -0.04, 0.03, 0.03, (0.8, 0.8, 0.8)),
            mark(x, -0.04, 0.001, 0.025, (0.03, 0.02, 0.02)),
            mark(x, -0.13, 0.06, 0.014, hair),
        ]
    tubes += [
        mark(0.0, 0.12, 0.02, 0.045, np.clip(np.array(skin) * 1.1, 0, 1), shadow=0.25),
        mark(0.0, 0.27, 0.07, 0.022, red),
        mark(0.0, 0.27, 0.06, 0.005, dark),
    ]
    fringe = at - 0.36 * size * down
    half, radii = 0.2 * size * right, (0.14 * size, 0.14 * size)
    return [*tubes, Tube(fringe - half, fringe + half, radii, hair, grain=0.3)]


def body(rng: np.random.Generator, side: int) -> list[Tube]:
    """Head, neck, torso and upper arms, mostly upright."""
    size = side * rng.uniform(0.18, 0.9)
    at = rng.uniform(0, 1, 2) * side
    angle = np.pi / 2 + rng.normal(0, 0.2)
    down, right = _turned(angle), _turned(angle, (0.0, 1.0))
    skin, colours = sample_tone(rng)[1], (_cloth_colour(rng), _cloth_colour(rng))
    chin, shoulders = at + 0.4 * size * down, at + 0.95 * size * down
    stripe = size * rng.uniform(0.03, 0.2) if rng.random() < 0.4 else 0.0
    tubes = [
        _limb(chin, shoulders, (0.2 * size, 0.24 * size), skin),
        _garment(
            shoulders, shoulders + 2.2 * size * down, (0.62 * size, 0.55 * size), colours, stripe
        ),
    ]
    bare = rng.random() < 0.5
    for side_of in (-1, 1):
        shoulder = shoulders + side_of * 0.62 * size * right + 0.05 * size * down
        elbow = shoulder + 1.3 * size * _turned(angle - side_of * rng.uniform(-0.2, 0.6))
        upper = shoulder, elbow, (0.2 * size, 0.17 * size)
        tubes.append(_limb(*upper, skin) if bare else _garment(*upper, colours, stripe))
        if rng.random() < 0.6:
            tubes += arm(rng, elbow, 1.1 * size, skin, rng.uniform(0, 2 * np.pi))
    return tubes + head(rng, at, size, skin, angle)


KINDS = (forearm_and_hand, bare_limb, body)
PROBABILITIES = (0.4, 0.3, 0.3)


def sample_person(rng: np.random.Generator, side: int) -> list[Tube]:
    """What is seen of one other person in an image `side` px wide."""
    return KINDS[rng.choice(len(KINDS), p=PROBABILITIES)](rng, side)
