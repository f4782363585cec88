"""Skin: a wide range of tones, and how they vary over a hand.

Axes: m rendered vertices. Colours are linear RGB albedo.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.synthetic.color import linear_rgb
from m3dhmr_jax.synthetic.surface import Masks

# sRGB, very light to very dark.
TONES = np.array(
    [
        [247, 219, 200],
        [239, 201, 176],
        [228, 184, 154],
        [213, 164, 130],
        [192, 142, 107],
        [167, 117, 83],
        [141, 95, 65],
        [115, 75, 51],
        [90, 58, 41],
        [70, 45, 34],
    ]
)
PALE_PALM = linear_rgb(np.array([0.80, 0.60, 0.50]))
VARNISH_PROBABILITY = 0.07
# In photos, which are white-balanced: skin is less saturated than TONES, which are of a colour
# chart, and most people who show their hands to a camera are light-skinned.
PHOTO_SATURATION = 0.65
PHOTO_TONE_BETA = (1.1, 2.3)
PHOTO_VARNISH_PROBABILITY = 0.15
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Of linear RGB.


class Skin(NamedTuple):
    """One person's skin; strengths lie in 0..1."""

    base: Float[np.ndarray, "3"]
    palm: Float[np.ndarray, "3"]
    red: Float[np.ndarray, "3"]
    nail: Float[np.ndarray, "3"]
    redness: float
    mottling: float
    creasing: float
    veins: float
    palm_lines: float
    bump: float
    gloss: float
    nail_gloss: float
    noise_offset: Float[np.ndarray, "3"]


def _tone_colour(tone: float) -> Float[np.ndarray, "3"]:
    """Linear albedo of a tone, from 0 for the lightest to `len(TONES) - 1`."""
    low = min(int(tone), len(TONES) - 2)
    blend = TONES[low] * (1 - tone + low) + TONES[low + 1] * (tone - low)
    return linear_rgb(blend / 255)


def sample_tone(rng: np.random.Generator) -> tuple[float, Float[np.ndarray, "3"]]:
    """A random person's tone and its linear albedo, as in photos."""
    tone = rng.beta(*PHOTO_TONE_BETA) * (len(TONES) - 1)
    colour = _tone_colour(tone) * np.exp(rng.normal(0, 0.035, 3))
    grey = colour @ LUMINANCE
    return tone, grey + PHOTO_SATURATION * (colour - grey)


def sample_skin(rng: np.random.Generator, is_lifelike: bool = False) -> Skin:
    """A random skin; palms are lighter and redder, more so on darker skin.

    `is_lifelike`: tones are as common and as saturated as in everyday photos.
    """
    if is_lifelike:
        tone, base = sample_tone(rng)
    else:
        tone = rng.random() ** 1.15 * (len(TONES) - 1)
        base = _tone_colour(tone) * np.exp(rng.normal(0, 0.05, 3) + rng.normal(0, 0.06))
    darkness = tone / (len(TONES) - 1)
    paler = 0.5 * darkness
    palm = (base * (1 - paler) + PALE_PALM * paler) * np.array([1.06, 0.96, 0.95])
    red = palm * np.array([1.02, 0.68, 0.64])
    nail = (0.4 * base + 0.6 * palm) * np.array([1.12, 1.0, 1.02]) + 0.03
    if rng.random() < (PHOTO_VARNISH_PROBABILITY if is_lifelike else VARNISH_PROBABILITY):
        nail = linear_rgb(rng.random(3))
    return Skin(
        base=base,
        palm=palm,
        red=red,
        nail=np.clip(nail, 0.01, 0.95),
        redness=rng.uniform(0.3, 0.95) * (1 - 0.5 * darkness),
        mottling=rng.uniform(0.04, 0.14),
        creasing=rng.uniform(0.25, 0.6),
        veins=rng.uniform(0, 0.5) ** 1.3,
        palm_lines=rng.uniform(0.15, 0.6),
        bump=rng.uniform(0.1, 0.5),
        gloss=rng.uniform(0.08, 0.42),
        nail_gloss=rng.uniform(0.5, 0.95),
        noise_offset=rng.uniform(0, 64, 3),
    )


def skin_albedo(
    skin: Skin, masks: Masks, mottle: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m 3"]:
    """Albedo without nails and details finer than the mesh; `mottle` is smooth noise."""
    palmar = masks.palmar[:, None]
    albedo = skin.base * (1 - palmar) + skin.palm * palmar
    flush = 0.6 * masks.knuckle + 0.6 * masks.tip * (0.4 + 0.6 * masks.palmar) + 0.22 * mottle
    flush = skin.redness * np.clip(flush + 0.1 * masks.palmar, 0, 1)[:, None]
    albedo = albedo * (1 - flush) + skin.red * flush
    albedo = albedo * (1 + skin.mottling * mottle[:, None])
    crease = skin.creasing * masks.crease[:, None] * np.array([0.45, 0.62, 0.66])
    return np.clip(albedo * (1 - crease), 0.004, 0.95).astype(np.float32)
