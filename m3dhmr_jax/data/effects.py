"""Random changes of a crop's pixels: what cameras, files and places do to photos.

Pure functions of a key, one crop in [0, 1] and a strength from 0, no change, to 1; batched with
`jax.vmap`. The amount is sampled for each crop, up to the strength. They are made for CPUs too:
no convolutions, and no random numbers per pixel from JAX, which take ten times as long there.
Axes: b batch, s crop side.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from m3dhmr_jax.data.color import LUMA
from m3dhmr_jax.types import FloatArray

BLOCK_PX = 8  # JPEG transforms blocks of 8 x 8 px.
# The example tables of the JPEG standard (ITU-T T.81, tables K.1 and K.2), for a quality of 50.
_LUMA_STEPS = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
# Luma and the two differences of colour from RGB (JFIF), and back.
_YCC_FROM_RGB = np.array([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_RGB_FROM_YCC = np.linalg.inv(_YCC_FROM_RGB)


def _cosines() -> Float[np.ndarray, "k k"]:
    """The orthonormal 2D cosine transform of a flattened block, k = 64."""
    n = np.arange(BLOCK_PX)
    rows = np.cos(np.pi * np.outer(n, 2 * n + 1) / (2 * BLOCK_PX)) * np.sqrt(2 / BLOCK_PX)
    rows[0] /= np.sqrt(2)
    return np.kron(rows, rows).astype(np.float32)


def change_gamma(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """A power of the pixels, between exp(-strength) and exp(strength)."""
    power = jnp.exp(strength * jax.random.uniform(key, minval=-1.0))
    # Faster than `power` on CPUs; black stays below half a step of 8 bits.
    return jnp.exp(power * jnp.log(jnp.maximum(image_01, 1e-6)))


def change_white_balance(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """A gain for each of red, green and blue, between exp(-strength) and exp(strength)."""
    gains = jnp.exp(strength * jax.random.uniform(key, (1, 1, 3), minval=-1.0))
    return jnp.clip(image_01 * gains, 0.0, 1.0)


def make_grey(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """Moves colours towards their grey; a strength of 1 leaves none."""
    del key
    grey = jnp.einsum("ijc,c->ij", image_01, jnp.array(LUMA), precision="highest")
    return (1 - strength) * jnp.asarray(image_01) + strength * grey[..., None]


def cut_out(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """Covers a rectangle with one colour, or with pixels from elsewhere in the crop.

    Its sides are between a quarter of `strength` and `strength` of the crop's.
    """
    size = len(image_01)
    side_key, place_key, colour_key, kind_key = jax.random.split(key, 4)
    sides = strength * size * jax.random.uniform(side_key, (2,), minval=0.25)
    starts = (size - sides) * jax.random.uniform(place_key, (2,))
    inside = jnp.abs(jnp.arange(size)[None] - (starts + sides / 2)[:, None]) < sides[:, None] / 2
    covered = (inside[0][:, None] & inside[1][None])[..., None]
    colour = jnp.broadcast_to(jax.random.uniform(colour_key, (1, 1, 3)), image_01.shape)
    elsewhere = jnp.asarray(image_01)[::-1, ::-1]
    return jnp.where(
        covered, jnp.where(jax.random.bernoulli(kind_key), colour, elsewhere), image_01
    )


def add_band(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """Blackens a band along one side, as where a crop leaves the photo; up to `strength` wide."""
    size = len(image_01)
    side_key, width_key = jax.random.split(key)
    ramp = jnp.arange(size)
    distances = jnp.stack([ramp, size - 1 - ramp])  # From the near and the far side.
    side = jax.random.randint(side_key, (), 0, 4)
    is_black = distances[side % 2] < strength * size * jax.random.uniform(width_key)
    is_black = jnp.where(side < 2, is_black[:, None], is_black[None])
    return jnp.where(is_black[..., None], 0.0, image_01)


def _gaussian(size: int, sigma_px: Float[Array, ""] | float) -> Float[Array, "s s"]:
    offsets = jnp.arange(size)[:, None] - jnp.arange(size)[None]
    weights = jnp.exp(-jnp.square(offsets / jnp.maximum(sigma_px, 1e-2)) / 2)
    return weights / weights.sum(axis=1, keepdims=True)


def blurring(key: Key[Array, ""], size: int, strength: float) -> Float[Array, "s s"]:
    """A filter matrix: a Gaussian with a deviation of up to a tenth of `strength` of the side."""
    return _gaussian(size, 0.1 * strength * size * jax.random.uniform(key))


def sharpening(key: Key[Array, ""], size: int, strength: float) -> Float[Array, "s s"]:
    """A filter matrix: adds up to `strength` times the difference to a blur of 1 px."""
    amount = strength * jax.random.uniform(key)
    return (1 + amount) * jnp.eye(size) - amount * _gaussian(size, 1.0)


def resampling(key: Key[Array, ""], size: int, strength: float) -> Float[Array, "s s"]:
    """A filter matrix: down to 1 - `strength` of the pixels, by areas, and up again, linearly."""
    kept = 1 - strength * jax.random.uniform(key)
    fine, coarse = jnp.arange(size), jnp.arange(size)
    starts, stops = coarse[:, None] / kept, (coarse[:, None] + 1) / kept
    down = jnp.minimum(stops, fine[None] + 1) - jnp.maximum(starts, fine[None])
    down = jnp.maximum(down, 0)
    down = down / jnp.maximum(down.sum(axis=1, keepdims=True), 1e-6)
    last = jnp.maximum(jnp.floor(kept * size) - 1, 0)
    places = jnp.clip((fine + 0.5) * kept - 0.5, 0, last)
    up = jnp.maximum(1 - jnp.abs(places[:, None] - coarse[None]), 0)
    return jnp.matmul(up, down, precision="highest")


def filtered(
    image_01: Float[FloatArray, "s s 3"], matrix: Float[FloatArray, "s s"]
) -> Float[Array, "s s 3"]:
    """Filters columns and rows, each by the matrix; clipped to [0, 1]."""
    columns = jnp.einsum("ij,jkc->ikc", matrix, image_01, precision="highest")
    rows = jnp.einsum("kj,ijc->ikc", matrix, columns, precision="highest")
    return jnp.clip(rows, 0.0, 1.0)


def add_noise(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """Adds nearly normal noise with a deviation of up to `strength`, per pixel and colour."""
    seed_key, amount_key = jax.random.split(key)
    # A hash of the position ("lowbias32"); the sum of its four bytes is nearly normal.
    bits = jnp.arange(image_01.size, dtype=jnp.uint32) * np.uint32(0x9E3779B9)
    bits = bits + jax.random.bits(seed_key)
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    bits = bits ^ (bits >> 16)
    total = sum(((bits >> shift) & 255).astype(jnp.float32) for shift in (0, 8, 16, 24))
    normal = (total / 255 - 2) * np.float32(np.sqrt(3))
    amount = strength * jax.random.uniform(amount_key)
    return jnp.clip(image_01 + amount * normal.reshape(image_01.shape), 0.0, 1.0)


def compress(
    key: Key[Array, ""], image_01: Float[FloatArray, "s s 3"], strength: float
) -> Float[Array, "s s 3"]:
    """JPEG's artefacts at a quality between 100 (1 - `strength`) and 100; s: a multiple of 8.

    Quantised as by the Independent JPEG Group's library, without subsampling of colours.
    """
    quality = jnp.maximum(100 * (1 - strength * jax.random.uniform(key)), 1)
    percent = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    base = jnp.array([_LUMA_STEPS, _CHROMA_STEPS, _CHROMA_STEPS], jnp.float32)
    steps = jnp.clip(jnp.floor((base * percent + 50) / 100), 1, 255)
    n = len(image_01) // BLOCK_PX
    to_ycc, to_rgb = (jnp.asarray(m, jnp.float32) for m in (_YCC_FROM_RGB, _RGB_FROM_YCC))
    ycc = jnp.einsum("ijc,dc->ijd", image_01 * 255 - 128, to_ycc, precision="highest")
    blocks = ycc.reshape(n, BLOCK_PX, n, BLOCK_PX, 3).transpose(0, 2, 4, 1, 3)
    cosines = _cosines()
    coefficients = jnp.matmul(blocks.reshape(n, n, 3, -1), cosines.T, precision="highest")
    rounded = jnp.round(coefficients / steps[None, None]) * steps[None, None]
    blocks = jnp.matmul(rounded, cosines, precision="highest")
    blocks = blocks.reshape(n, n, 3, BLOCK_PX, BLOCK_PX).transpose(0, 3, 1, 4, 2)
    rgb = jnp.einsum("ijc,dc->ijd", blocks.reshape(image_01.shape), to_rgb, precision="highest")
    return jnp.clip((rgb + 128) / 255, 0.0, 1.0)


def mix_amplitudes(
    keys: Key[Array, " b"], images_01: Float[FloatArray, "b s s 3"], strength: float
) -> Float[Array, "b s s 3"]:
    """Moves each crop's Fourier amplitudes towards those of the batch's previous crop.

    The phases stay, and with them the shapes; amplitudes are mixed geometrically, by a fraction of
    up to `strength`. For batches, as each crop's transform serves twice.
    """
    size = images_01.shape[1]
    spectra = jnp.fft.rfft2(images_01, axes=(1, 2))
    power = jnp.square(spectra.real) + jnp.square(spectra.imag) + 1e-8
    fraction = strength * jax.vmap(jax.random.uniform)(keys)[:, None, None, None]
    ratio = jnp.exp(fraction / 2 * jnp.log(jnp.roll(power, 1, axis=0) / power))
    mixed = jnp.fft.irfft2(spectra * ratio, s=(size, size), axes=(1, 2))
    return jnp.clip(mixed, 0.0, 1.0)
