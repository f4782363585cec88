"""Smooth random fields, computed once: 3D noise for surfaces, a bank of 2D noise for images.

Axes: n side of a tile or field, b fields, h w window.
"""

import functools
from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float

TILE = 32
FIELD_SIDE = 320
FALLOFFS = (0.9, 1.2, 1.5, 1.8, 2.1, 2.4)  # Of the fields' amplitude with frequency.


@functools.cache
def noise_tile() -> Float[np.ndarray, "n n n 4"]:
    """Periodic noise of unit deviation and its slopes along x, y, z, per cell."""
    rng = np.random.default_rng(5)
    value = rng.normal(size=(TILE,) * 3)
    for axis in range(3):
        value = value + 0.5 * (np.roll(value, 1, axis) + np.roll(value, -1, axis))
    value = (value - value.mean()) / value.std()
    slopes = [(np.roll(value, -1, axis) - np.roll(value, 1, axis)) / 2 for axis in range(3)]
    return np.stack([value, *slopes], -1).astype(np.float32)


@numba.njit(cache=True, fastmath=True, inline="always")
@no_type_check
def cell(x):
    """Cell of the periodic tile and the fraction of the way to the next."""
    low = np.floor(x)
    return int(low) & (TILE - 1), np.float32(x - low)


@numba.njit(cache=True, fastmath=True)
@no_type_check
def noise_at(tile, x, y, z, channel):
    """Trilinear value of one channel of `noise_tile` at a point given in cells."""
    i, u = cell(x)
    j, v = cell(y)
    k, w = cell(z)
    i1, j1, k1 = (i + 1) & (TILE - 1), (j + 1) & (TILE - 1), (k + 1) & (TILE - 1)
    c = channel
    near = tile[i, j, k, c] + u * (tile[i1, j, k, c] - tile[i, j, k, c])
    near_up = tile[i, j1, k, c] + u * (tile[i1, j1, k, c] - tile[i, j1, k, c])
    far = tile[i, j, k1, c] + u * (tile[i1, j, k1, c] - tile[i, j, k1, c])
    far_up = tile[i, j1, k1, c] + u * (tile[i1, j1, k1, c] - tile[i, j1, k1, c])
    near += v * (near_up - near)
    far += v * (far_up - far)
    return near + w * (far - near)


@numba.njit(cache=True, fastmath=True)
@no_type_check
def fractal(tile, points):
    """Three octaves of noise at points given in cells."""
    out = np.empty(len(points), np.float32)
    for p in range(len(points)):
        x, y, z = points[p]
        coarse = noise_at(tile, x, y, z, 0)
        middle = noise_at(tile, x * np.float32(2.3) + np.float32(9), y * np.float32(2.3), z, 0)
        slow = np.float32(0.4)
        large = noise_at(tile, x * slow + np.float32(17), y * slow, z * slow, 0)
        out[p] = np.float32(0.6) * coarse + np.float32(0.35) * middle + np.float32(0.6) * large
    return out


@functools.cache
def noise_fields() -> Float[np.ndarray, "b n n"]:
    """A bank of 2D fractal noise, from rough to smooth, each of mean 0 and deviation 1."""
    rng = np.random.default_rng(11)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(FIELD_SIDE)] * 2))
    frequency[0, 0] = 1
    fields = []
    for falloff in FALLOFFS:
        spectrum = rng.normal(size=(2, FIELD_SIDE, FIELD_SIDE))
        field = np.fft.ifft2((spectrum[0] + 1j * spectrum[1]) / frequency**falloff).real
        fields.append((field - field.mean()) / field.std())
    return np.stack(fields).astype(np.float32)


def _enlarged(field: Float[np.ndarray, "n n"], falloff: float, side: int):
    """A field of the same spectrum `side` wide: the periodic field tiled gives the detail."""
    coarse = cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC)
    repeats = -(-side // FIELD_SIDE)
    fine = np.tile(field, (repeats, repeats))[:side, :side]
    amplitude = np.float32((side / FIELD_SIDE) ** (1 - falloff))
    return (coarse + amplitude * fine) / np.sqrt(1 + amplitude**2)


def sample_field(
    rng: np.random.Generator, side: int, smooth: int | None = None
) -> Float[np.ndarray, "h w"]:
    """A random window, flipped and transposed at random, of a random or the given field.

    Sides beyond the field's enlarge it and add the finer detail, from the field itself.
    """
    bank = noise_fields()
    index = int(rng.integers(len(bank))) if smooth is None else smooth
    field = bank[index] if side <= FIELD_SIDE else _enlarged(bank[index], FALLOFFS[index], side)
    top, left = rng.integers(0, len(field) - side + 1, 2)
    field = field[top : top + side, left : left + side]
    if rng.random() < 0.5:
        field = field.T
    return np.ascontiguousarray(field[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])])
