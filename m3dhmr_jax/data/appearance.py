"""Which random changes a crop's appearance gets, how often and how strong.

Axes: b batch, s crop side.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from m3dhmr_jax.data import effects
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import FloatArray

Change = tuple[float, ...]  # Its probability and its largest strength.
OFF: Change = (0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class AppearanceConfig:
    """For each change the probability that a crop gets it, and its largest strength.

    Both lie in 0..1. A change with a probability of 0 is not computed.

    Attributes:
        background: another image's pixels wherever neither the hand nor anything before the
            background covers it, with brightness, contrast and saturation changed by up to the
            strength; images whose coverage is unknown keep theirs.
        amplitudes to jpeg: see `data.effects`, in the order in which they are applied. All colour
            changes of `AugmentConfig` come after `amplitudes`.

    Raises:
        UserError: if a field is not a pair of numbers in 0..1.
    """

    background: Change = OFF
    amplitudes: Change = OFF
    gamma: Change = OFF
    white_balance: Change = OFF
    grey: Change = OFF
    cutout: Change = OFF
    band: Change = OFF
    blur: Change = OFF
    sharpen: Change = OFF
    resample: Change = OFF
    noise: Change = OFF
    jpeg: Change = OFF

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not _is_pair_of_fractions(value):
                raise UserError(
                    f"appearance.{field.name}={value} must be two numbers in 0..1: the probability "
                    "of the change and its largest strength"
                )


def _is_pair_of_fractions(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(x, int | float) and math.isfinite(x) and 0 <= x <= 1 for x in value)
    )


UNCHANGED = AppearanceConfig()
Effect = Callable[[Key[Array, ""], Float[FloatArray, "s s 3"], float], Float[Array, "s s 3"]]
_BEFORE_LENS: dict[str, Effect] = {
    "gamma": effects.change_gamma,
    "white_balance": effects.change_white_balance,
    "grey": effects.make_grey,
    "cutout": effects.cut_out,
    "band": effects.add_band,
}
_LENS = {
    "blur": effects.blurring,
    "sharpen": effects.sharpening,
    "resample": effects.resampling,
}
_AFTER_LENS: dict[str, Effect] = {"noise": effects.add_noise, "jpeg": effects.compress}


def sometimes(
    key: Key[Array, ""],
    probability: float,
    changed: Float[Array, "*shape"],
    unchanged: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """`changed` with this probability."""
    return jnp.where(jax.random.bernoulli(key, probability), changed, unchanged)


def change_pixels(
    image_01: Float[Array, "s s 3"], key: Key[Array, ""], config: AppearanceConfig
) -> Float[Array, "s s 3"]:
    """The changes from `gamma` to `jpeg`; one key decides all."""
    image_01 = _apply(_BEFORE_LENS, image_01, jax.random.fold_in(key, 0), config)
    image_01 = _filter(image_01, jax.random.fold_in(key, 1), config)
    return _apply(_AFTER_LENS, image_01, jax.random.fold_in(key, 2), config)


def _apply(
    changes: dict[str, Effect],
    image_01: Float[Array, "s s 3"],
    key: Key[Array, ""],
    config: AppearanceConfig,
) -> Float[Array, "s s 3"]:
    for i, (name, change) in enumerate(changes.items()):
        probability, strength = getattr(config, name)
        if probability:
            which, how = jax.random.split(jax.random.fold_in(key, i))
            image_01 = sometimes(which, probability, change(how, image_01, strength), image_01)
    return image_01


def _filter(
    image_01: Float[Array, "s s 3"], key: Key[Array, ""], config: AppearanceConfig
) -> Float[Array, "s s 3"]:
    """All filters at once: their product costs as little as one of them."""
    size = len(image_01)
    product = jnp.eye(size)
    for i, (name, matrix) in enumerate(_LENS.items()):
        probability, strength = getattr(config, name)
        if probability:
            which, how = jax.random.split(jax.random.fold_in(key, i))
            sampled = sometimes(which, probability, matrix(how, size, strength), jnp.eye(size))
            product = jnp.matmul(sampled, product, precision="highest")
    if any(getattr(config, name)[0] for name in _LENS):
        image_01 = effects.filtered(image_01, product)
    return image_01


def mix_amplitudes(
    images_01: Float[Array, "b s s 3"], keys: Key[Array, " b"], config: AppearanceConfig
) -> Float[Array, "b s s 3"]:
    """`effects.mix_amplitudes` for some of the crops."""
    probability, strength = config.amplitudes
    if not probability:
        return images_01
    which, how = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    mixed = effects.mix_amplitudes(how, images_01, strength)
    draw = jax.vmap(sometimes, (0, None, 0, 0))
    return draw(which, probability, mixed, images_01)
