"""From linear light to a photo as a cheap camera would store it.

Axes: h w pixels, s samples per pixel side. Colours RGB.
"""

from typing import NamedTuple, no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float, Int, UInt8

MASK_QUALITY = 95


class CameraLook(NamedTuple):
    """How the camera renders light: all that happens after the scene."""

    exposure: float
    contrast: float
    blur_px: float
    noise_01: float
    jpeg_quality: int


def sample_look(rng: np.random.Generator) -> CameraLook:
    """A random camera; most pictures are fairly sharp and clean."""
    blur = rng.choice([0.0, 0.4, 0.6, 0.9, 1.3], p=[0.2, 0.3, 0.25, 0.17, 0.08])
    noise = rng.choice([0.0, 0.006, 0.014, 0.026], p=[0.25, 0.4, 0.25, 0.1])
    return CameraLook(
        exposure=float(np.exp(rng.normal(0.12, 0.24))),
        contrast=rng.uniform(0.88, 1.14),
        blur_px=float(blur),
        noise_01=float(noise),
        jpeg_quality=int(rng.integers(45, 96)),
    )


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _develop(samples, face, background, exposure, out):
    side, one = len(out), np.float32(1)
    per_px = len(samples) // side
    share = one / np.float32(per_px * per_px)
    for y in range(side):
        for x in range(side):
            for c in range(3):
                total = np.float32(0)
                for i in range(y * per_px, (y + 1) * per_px):
                    for j in range(x * per_px, (x + 1) * per_px):
                        light = samples[i, j, c] if face[i, j] >= 0 else background[y, x, c]
                        light = max(light, np.float32(0)) * exposure
                        total += min(light / (one + np.float32(0.16) * light), one)
                total *= share
                if total <= np.float32(0.0031308):
                    out[y, x, c] = np.float32(12.92) * total
                else:
                    out[y, x, c] = np.float32(1.055) * total ** np.float32(1 / 2.4) - np.float32(
                        0.055
                    )


def develop(
    samples: Float[np.ndarray, "hs ws 3"],
    face: Int[np.ndarray, "hs ws"],
    background: Float[np.ndarray, "h w 3"],
    look: CameraLook,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """An sRGB photo: the scene over its background through a tone curve, blur, noise, contrast."""
    photo = np.empty_like(background)
    _develop(samples, face, background, np.float32(look.exposure), photo)
    if look.blur_px > 0:
        photo = cv2.GaussianBlur(photo, (0, 0), look.blur_px)
    if look.noise_01 > 0:
        noise = rng.standard_normal(photo.shape, dtype=np.float32)
        photo = photo + np.float32(look.noise_01) * noise
    photo = (photo - np.float32(0.5)) * np.float32(look.contrast) + np.float32(0.5)
    return (np.clip(photo, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def hand_mask(
    face: Int[np.ndarray, "hs ws"], n_hand_faces: int, side: int
) -> UInt8[np.ndarray, "h w"]:
    """255 where at least half of a pixel shows the hand."""
    per_px = len(face) // side
    hand = (face >= 0) & (face < n_hand_faces)
    share = hand.reshape(side, per_px, side, per_px).mean((1, 3))
    return np.where(share >= 0.5, 255, 0).astype(np.uint8)


def encode_photo(photo: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """JPEG bytes of an RGB picture."""
    flipped = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_mask(mask: UInt8[np.ndarray, "h w"]) -> bytes:
    """JPEG bytes of a mask with one channel."""
    return cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, MASK_QUALITY])[1].tobytes()
