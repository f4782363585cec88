"""Drawn images without hands, for tests that none are found: noise, text, shapes.

Axes: h w image.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

SIZE = 320
Image = UInt8[np.ndarray, "h w 3"]
SKIN = (224, 172, 140)


def noise(rng: np.random.Generator) -> Image:
    return rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def clouds(rng: np.random.Generator) -> Image:
    """Noise of every scale, as in a texture."""
    total = np.zeros((SIZE, SIZE, 3))
    for cells in (4, 8, 16, 32, 64):
        coarse = rng.normal(size=(cells, cells, 3)).astype(np.float32)
        total += cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) / cells**0.5
    return np.clip(128 + 100 * total, 0, 255).astype(np.uint8)


def stripes(rng: np.random.Generator) -> Image:
    """Stripes as wide as fingers, in a colour of skin."""
    y, x = np.mgrid[:SIZE, :SIZE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(12, 50)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return (wave[..., None] * SKIN).astype(np.uint8)


def checkers(rng: np.random.Generator) -> Image:
    y, x = np.mgrid[:SIZE, :SIZE] // rng.integers(8, 40)
    return np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


def text(rng: np.random.Generator) -> Image:
    page = np.full((SIZE, SIZE, 3), 245, np.uint8)
    letters = list("abcdefghijklmnopqrstuvwxyz     ")
    for line in range(20, SIZE, 18):
        words = "".join(rng.choice(letters, 40))
        cv2.putText(page, words, (8, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20, 20, 20), 1)
    return page


def face(rng: np.random.Generator) -> Image:
    canvas = clouds(rng)
    centre = np.array([SIZE / 2, SIZE / 2]) + rng.uniform(-20, 20, 2)
    _ellipse(canvas, centre, (75, 100), 0, SKIN)
    for side in (-1, 1):
        _ellipse(canvas, centre + np.array([30 * side, -25]), (14, 8), 0, (250, 250, 250))
        _ellipse(canvas, centre + np.array([30 * side, -25]), (6, 6), 0, (60, 40, 30))
        _ellipse(canvas, centre + np.array([30 * side, -45]), (18, 4), 0, (80, 50, 40))
    _ellipse(canvas, centre + np.array([0, 10]), (9, 16), 0, (205, 150, 120))
    _ellipse(canvas, centre + np.array([0, 50]), (28, 9), 0, (170, 80, 80))
    _ellipse(canvas, centre + np.array([0, -85]), (76, 35), 0, (60, 40, 30))
    return cv2.GaussianBlur(canvas, (0, 0), 1.5)


def foot(rng: np.random.Generator) -> Image:
    """A sole with five toes, seen from above."""
    canvas = clouds(rng)
    tilt = np.radians(rng.uniform(-20, 20))
    rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    centre = np.array([SIZE / 2, SIZE / 2])
    parts = [((0, 70), (32, 45)), ((0, 10), (36, 70)), ((0, -45), (45, 35))]
    toes = [((-38, -88), (15, 22)), ((-12, -95), (10, 17)), ((8, -92), (9, 15))]
    toes += [((25, -84), (8, 13)), ((40, -72), (8, 11))]
    for offset, axes in parts + toes:
        _ellipse(canvas, centre + rotation @ offset, axes, np.degrees(tilt), SKIN)
    return cv2.GaussianBlur(canvas, (0, 0), 1.5)


def mitten(rng: np.random.Generator) -> Image:
    """A glove without fingers, of one colour."""
    canvas = clouds(rng)
    colour = tuple(rng.integers(0, 256, 3).tolist())
    centre = np.array([SIZE / 2, SIZE / 2])
    for offset, axes, tilt in (((0, 0), (48, 80), 0), ((-58, 20), (20, 45), -30)):
        _ellipse(canvas, centre + offset, axes, tilt, colour)
    cv2.rectangle(canvas, (115, 230), (205, 319), colour, -1)
    return cv2.GaussianBlur(canvas, (0, 0), 1.5)


def _ellipse(canvas, centre, axes, tilt_deg, colour):
    x, y = np.round(centre).astype(int).tolist()
    cv2.ellipse(canvas, (x, y), axes, tilt_deg, 0, 360, colour, -1, cv2.LINE_AA)


DRAWN: dict[str, Callable[[np.random.Generator], Image]] = {
    function.__name__: function
    for function in (noise, clouds, stripes, checkers, text, face, foot, mitten)
}
