"""From linear light to a photo as a cheap camera would store it.

Axes: h w pixels, s samples per pixel side. Colours RGB.
"""

import functools
from typing import NamedTuple, no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float, Int, UInt8

from m3dhmr_jax.synthetic.color import srgb

MASK_QUALITY = 95
METERED_WHITE = 0.62  # Where the bright parts of a picture should come to lie.
METER_RANGE = (0.45, 1.7)
SHOULDER = np.float32(0.16)  # How softly highlights saturate.


class CameraLook(NamedTuple):
    """How the camera renders light: all that happens after the scene."""

    exposure: float  # Times what the camera's own metering chooses.
    contrast: float
    blur_px: float
    noise_01: float
    jpeg_quality: int


def sample_look(rng: np.random.Generator) -> CameraLook:
    """A random camera; most pictures are fairly sharp and clean."""
    blur = rng.choice([0.0, 0.4, 0.6, 0.9, 1.3], p=[0.2, 0.3, 0.25, 0.17, 0.08])
    noise = rng.choice([0.0, 0.006, 0.014, 0.026], p=[0.25, 0.4, 0.25, 0.1])
    return CameraLook(
        exposure=float(np.exp(rng.normal(0, 0.22))),
        contrast=rng.uniform(0.88, 1.14),
        blur_px=float(blur),
        noise_01=float(noise),
        jpeg_quality=int(rng.integers(45, 96)),
    )


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _expose(light, exposure):
    light = max(light, np.float32(0)) * exposure
    return min(light / (np.float32(1) + SHOULDER * light), np.float32(1))


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _develop(samples, face, background, exposure, curve, out):
    side = len(out)
    per_px = len(samples) // side
    share = np.float32(1) / np.float32(per_px * per_px)
    top = np.float32(len(curve) - 1)
    for y in range(side):
        for x in range(side):
            covered = 0
            for i in range(y * per_px, (y + 1) * per_px):
                for j in range(x * per_px, (x + 1) * per_px):
                    covered += face[i, j] >= 0
            bare = np.float32(per_px * per_px - covered)
            for c in range(3):
                total = bare * _expose(background[y, x, c], exposure)
                if covered:
                    for i in range(y * per_px, (y + 1) * per_px):
                        for j in range(x * per_px, (x + 1) * per_px):
                            if face[i, j] >= 0:
                                total += _expose(samples[i, j, c], exposure)
                out[y, x, c] = curve[int(total * share * top + np.float32(0.5))]


@functools.cache
def _curve() -> Float[np.ndarray, " k"]:
    """sRGB of 8192 evenly spaced amounts of light."""
    return srgb(np.linspace(0, 1, 8192)).astype(np.float32)


@functools.cache
def _grain() -> Float[np.ndarray, " k"]:
    """Normal noise, drawn once: a window into it costs a tenth of drawing afresh."""
    return np.random.default_rng(17).standard_normal(1 << 20, dtype=np.float32)


def meter(
    samples: Float[np.ndarray, "hs ws 3"],
    face: Int[np.ndarray, "hs ws"],
    background: Float[np.ndarray, "h w 3"],
) -> float:
    """Exposure as a camera would choose it: half way towards bringing the bright parts to white."""
    coarse, stride = background[::4, ::4, 1], 4 * len(samples) // len(background)
    scene = np.where(face[::stride, ::stride] >= 0, samples[::stride, ::stride, 1], coarse)
    bright = float(np.percentile(scene, 92))
    return float(np.clip((METERED_WHITE / (bright + 1e-3)) ** 0.6, *METER_RANGE))


def develop(
    samples: Float[np.ndarray, "hs ws 3"],
    face: Int[np.ndarray, "hs ws"],
    background: Float[np.ndarray, "h w 3"],
    look: CameraLook,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """An sRGB photo: the scene over its background through a tone curve, blur, noise, contrast."""
    photo = np.empty_like(background)
    exposure = np.float32(look.exposure * meter(samples, face, background))
    _develop(samples, face, background, exposure, _curve(), photo)
    if look.blur_px > 0:
        photo = cv2.GaussianBlur(photo, (0, 0), look.blur_px)
    if look.noise_01 > 0:
        start = rng.integers(len(_grain()) - photo.size)
        grain = _grain()[start : start + photo.size].reshape(photo.shape)
        photo = photo + np.float32(look.noise_01) * grain
    photo = (photo - np.float32(0.5)) * np.float32(look.contrast) + np.float32(0.5)
    return (np.clip(photo, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def hand_mask(
    face: Int[np.ndarray, "hs ws"], n_hand_faces: int, side: int
) -> UInt8[np.ndarray, "h w"]:
    """255 where at least half of a pixel shows the hand."""
    hand = (face >= 0) & (face < n_hand_faces)
    share = cv2.resize(hand.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
    return np.where(share > 127, 255, 0).astype(np.uint8)


def encode_photo(photo: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """JPEG bytes of an RGB picture."""
    flipped = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_mask(mask: UInt8[np.ndarray, "h w"]) -> bytes:
    """JPEG bytes of a mask with one channel."""
    return cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, MASK_QUALITY])[1].tobytes()
