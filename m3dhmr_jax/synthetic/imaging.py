"""From linear radiance to the 8-bit image of a cheap camera.

Axes: h w pixels, hs ws samples (1 or 2 per pixel side), k table entries. Colours are RGB.
"""

import functools
from typing import NamedTuple, no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from m3dhmr_jax.synthetic.color import srgb

MASK_QUALITY = 95
EXPOSURE_TARGET = 0.62  # Linear value that auto-exposure aims at for the bright parts.
EXPOSURE_RANGE = (0.45, 1.7)
SUBJECT_TARGET = 0.23  # The same for the hand's median.
SUBJECT_RANGE = (0.4, 2.5)
SHARPENED_PX = 0.9
SHOULDER = np.float32(0.16)  # Larger: highlights saturate more softly.


class CameraResponse(NamedTuple):
    """How the camera turns radiance into an image."""

    # Multiplies the automatic exposure.
    exposure: float
    contrast: float
    blur_px: float
    noise_01: float
    jpeg_quality: int
    # Strength of unsharp masking over `SHARPENED_PX`.
    sharpening: float = 0.0
    # Below 1, the image was this much smaller once, was stored as a JPEG and then enlarged.
    enlarged_from: float = 1.0
    # How far exposure is that of the hand instead of the whole image, from 0 to 1.
    subject_metering: float = 0.0


def sample_camera_response(rng: np.random.Generator) -> CameraResponse:
    """A random camera; most images are fairly sharp and clean."""
    blur = rng.choice([0.0, 0.4, 0.6, 0.9, 1.3], p=[0.2, 0.3, 0.25, 0.17, 0.08])
    noise = rng.choice([0.0, 0.006, 0.014, 0.026], p=[0.25, 0.4, 0.25, 0.1])
    return CameraResponse(
        exposure=float(np.exp(rng.normal(0, 0.22))),
        contrast=rng.uniform(0.88, 1.14),
        blur_px=float(blur),
        noise_01=float(noise),
        jpeg_quality=int(rng.integers(45, 96)),
    )


def sample_lifelike_camera_response(rng: np.random.Generator) -> CameraResponse:
    """Phones and webcams: contrast and sharpening, clipped highlights, enlarged small images."""
    return sample_camera_response(rng)._replace(
        exposure=float(np.exp(rng.normal(0.03, 0.16))),
        contrast=rng.uniform(1.0, 1.3),
        jpeg_quality=int(rng.integers(25, 96)),
        sharpening=rng.uniform(0.3, 1.4) if rng.random() < 0.6 else 0.0,
        enlarged_from=rng.uniform(0.4, 0.9) if rng.random() < 0.25 else 1.0,
        subject_metering=rng.uniform(0.4, 0.9),
    )


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _tone_curve(light, exposure):
    light = max(light, np.float32(0)) * exposure
    return min(light / (np.float32(1) + SHOULDER * light), np.float32(1))


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _tone_map(samples, face, background, exposure, curve, out):
    height, width, _ = out.shape
    per_px = len(samples) // height
    weight = np.float32(1) / np.float32(per_px * per_px)
    top = np.float32(len(curve) - 1)
    for y in range(height):
        for x in range(width):
            covered = 0
            for i in range(y * per_px, (y + 1) * per_px):
                for j in range(x * per_px, (x + 1) * per_px):
                    covered += face[i, j] >= 0
            bare = np.float32(per_px * per_px - covered)
            for c in range(3):
                total = bare * _tone_curve(background[y, x, c], exposure)
                if covered:
                    for i in range(y * per_px, (y + 1) * per_px):
                        for j in range(x * per_px, (x + 1) * per_px):
                            if face[i, j] >= 0:
                                total += _tone_curve(samples[i, j, c], exposure)
                out[y, x, c] = curve[int(total * weight * top + np.float32(0.5))]


@functools.cache
def _srgb_table() -> Float[np.ndarray, " k"]:
    """sRGB values of 8192 evenly spaced linear values."""
    return srgb(np.linspace(0, 1, 8192)).astype(np.float32)


@functools.cache
def _grain_bank() -> Float[np.ndarray, " k"]:
    """Normal noise, sampled once: a window into it costs a tenth of sampling it anew."""
    return np.random.default_rng(17).standard_normal(1 << 20, dtype=np.float32)


def _sample_grain(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "h w 3"]:
    """Normal noise: of small images a window into the bank, of large ones sampled anew."""
    bank, size = _grain_bank(), int(np.prod(shape))
    if size >= len(bank):
        return rng.standard_normal(shape, dtype=np.float32)
    start = rng.integers(len(bank) - size)
    return bank[start : start + size].reshape(shape)


def auto_exposure(
    samples: Float[np.ndarray, "hs ws 3"],
    face: Int[np.ndarray, "hs ws"],
    background: Float[np.ndarray, "h w 3"],
) -> float:
    """Automatic exposure: brings the bright parts half way (in logarithms) to EXPOSURE_TARGET."""
    coarse, stride = background[::4, ::4, 1], 4 * len(samples) // len(background)
    scene = np.where(face[::stride, ::stride] >= 0, samples[::stride, ::stride, 1], coarse)
    bright = float(np.percentile(scene, 92))
    return float(np.clip((EXPOSURE_TARGET / (bright + 1e-3)) ** 0.6, *EXPOSURE_RANGE))


def subject_exposure(
    samples: Float[np.ndarray, "hs ws 3"], face: Int[np.ndarray, "hs ws"]
) -> float:
    """The exposure that brings the foreground's median to SUBJECT_TARGET."""
    subject = samples[::4, ::4, 1][face[::4, ::4] >= 0]
    median = float(np.median(subject)) if subject.size else SUBJECT_TARGET
    return float(np.clip(SUBJECT_TARGET / (median + 1e-3), *SUBJECT_RANGE))


def apply_camera_response(
    samples: Float[np.ndarray, "hs ws 3"],
    face: Int[np.ndarray, "hs ws"],
    background: Float[np.ndarray, "h w 3"],
    response: CameraResponse,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """An sRGB image: the scene over its background after tone mapping, blur, noise and contrast."""
    image = np.empty_like(background)
    exposure = response.exposure * auto_exposure(samples, face, background)
    if response.subject_metering > 0:
        subject = response.exposure * subject_exposure(samples, face)
        exposure *= (subject / exposure) ** response.subject_metering
    exposure = np.float32(exposure)
    _tone_map(samples, face, background, exposure, _srgb_table(), image)
    if response.blur_px > 0:
        image = cv2.GaussianBlur(image, (0, 0), response.blur_px)
    if response.noise_01 > 0:
        image = image + np.float32(response.noise_01) * _sample_grain(rng, image.shape)
    if response.sharpening > 0:
        smooth = cv2.GaussianBlur(image, (0, 0), SHARPENED_PX)
        image = image + np.float32(response.sharpening) * (image - smooth)
    image = (image - np.float32(0.5)) * np.float32(response.contrast) + np.float32(0.5)
    image = (np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return image if response.enlarged_from == 1 else _enlarged(image, response)


def _enlarged(
    image: UInt8[np.ndarray, "h w 3"], response: CameraResponse
) -> UInt8[np.ndarray, "h w 3"]:
    height, width, _ = image.shape
    size = round(width * response.enlarged_from), round(height * response.enlarged_from)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = np.frombuffer(encode_image(small, response.jpeg_quality), np.uint8)
    decoded = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)
    enlarged = cv2.resize(decoded, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(enlarged[..., ::-1])


def pixel_coverage(
    covered: Bool[np.ndarray, "hs ws"], samples_per_px: int
) -> UInt8[np.ndarray, "h w"]:
    """Fraction of each pixel's samples that are covered; 255 is all of them."""
    height, width = (length // samples_per_px for length in covered.shape)
    samples = covered.astype(np.uint8) * 255
    return cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)


def encode_image(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """JPEG bytes of an RGB image."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_mask(mask: UInt8[np.ndarray, "h w"]) -> bytes:
    """JPEG bytes of a single-channel mask."""
    return cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, MASK_QUALITY])[1].tobytes()


def encode_coverage(coverage: UInt8[np.ndarray, "h w"]) -> bytes:
    """PNG bytes: soft edges stay exact."""
    return cv2.imencode(".png", coverage, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
