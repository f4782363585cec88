"""From full images to the network's input, on the device: crop, rotation, shift, color, labels.

Pure functions that run inside the jitted step; all randomness comes from one key per example and
view. Functions are written for one example and batched with `jax.vmap`.

A crop is a rotated rectangle of the image, resampled to `size` px. Pixel centres are on integers
and the rectangle's centre falls on `size / 2`, as in published implementations; prediction crops
alike. A positive angle rotates the image's content counter-clockwise on the screen; 3D labels are
rotated with it about the optical axis.
Axes: b batch, h w image, s crop side, n landmarks, v vertices.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from m3dhmr_jax.camera.pinhole import (
    apply_affine,
    invert_affine,
    project,
    rotate_about_optical_axis,
)
from m3dhmr_jax.data.color import jitter_color
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import (
    FREIHAND_CROP_PX,
    FREIHAND_IMAGE_PX,
    MESH_UNIT_M,
    ROOT,
    Batch,
    FloatArray,
    View,
)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """The range of random crops and colors around the hand's mask; the config has the values.

    Attributes:
        size: side of the crop, px.
        scale, scale_jitter: side of the crop box over the longer side of the mask's box, and the
            largest deviation from it.
        max_angle_deg, rotation_probability: a crop is rotated with this probability, by any angle
            up to the largest.
        shift: fraction of the largest shift that keeps the hand inside the crop, 0 to 1.
        brightness, contrast, saturation: factors are drawn from 1 - strength to 1 + strength.
        hue: fraction of a full turn of the color circle, in either direction.

    Raises:
        UserError: if a field is out of range.
    """

    size: int
    scale: float
    scale_jitter: float
    max_angle_deg: float
    rotation_probability: float
    shift: float
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __post_init__(self):
        if self.size < 1:
            raise UserError(f"augment.size={self.size} must be at least 1: it is a side in pixels")
        if not 0 <= self.scale_jitter < self.scale:
            raise UserError(
                f"augment.scale_jitter={self.scale_jitter} must be at least 0 and smaller than "
                f"augment.scale={self.scale}: the crop's side is between their difference and sum"
            )
        if not 0 <= self.max_angle_deg <= 180:
            raise UserError(
                f"augment.max_angle_deg={self.max_angle_deg} must lie in 0..180: "
                "crops are rotated by up to this angle in either direction"
            )
        for name in ("rotation_probability", "shift", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"augment.{name}={getattr(self, name)} must lie in 0..1: it is a fraction"
                )
        if not 0 <= self.hue <= 0.5:
            raise UserError(
                f"augment.hue={self.hue} must lie in 0..0.5: half a turn of the color circle "
                "is the largest change"
            )


def crop_from_box(
    centre_px: Float[FloatArray, "2"],
    box_wh_px: Float[FloatArray, "2"],
    crop_wh_px: Float[FloatArray, "2"],
    angle_rad: Float[FloatArray, ""] | float,
) -> Float[Array, "2 3"]:
    """Image pixels to crop pixels for the rectangle of size `box_wh_px` around `centre_px`.

    `crop = crop_wh / 2 + diag(crop_wh / box_wh) R(-angle) (image - centre)`.
    """
    cosine, sine = jnp.cos(angle_rad), jnp.sin(angle_rad)
    zoom = jnp.asarray(crop_wh_px) / box_wh_px
    linear = zoom[:, None] * jnp.array([[cosine, sine], [-sine, cosine]])
    offset = crop_wh_px / 2 - (linear[:, 0] * centre_px[0] + linear[:, 1] * centre_px[1])
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def max_shift(
    box_wh_px: Float[FloatArray, "2"], content_wh_px: Float[FloatArray, "2"]
) -> Float[Array, "2"]:
    """How far a box may move along each axis before its centred content reaches the border."""
    return jnp.maximum((jnp.asarray(box_wh_px) - content_wh_px) / 2, 0.0)


def warp(
    image: UInt8[FloatArray, "h w 3"], crop_from_img: Float[FloatArray, "2 3"], size: int
) -> Float[Array, "s s 3"]:
    """The crop in [0, 1], sampled bilinearly; black outside the image.

    Four pixels are read per sample: crops that shrink the image more than twofold alias, so images
    much larger than FreiHAND's should be reduced first.
    """
    height, width, _ = image.shape
    # A border of zeros, and coordinates clipped to it, avoid bounds checks per pixel.
    stride = width + 3
    pixels = jnp.pad(jnp.asarray(image), ((1, 2), (1, 2), (0, 0))).reshape(-1, 3)
    to_img = invert_affine(crop_from_img)
    across, down = jnp.arange(size, dtype=jnp.float32)[None, :], jnp.arange(size)[:, None]
    x = jnp.clip(to_img[0, 0] * across + to_img[0, 1] * down + to_img[0, 2], -1, width)
    y = jnp.clip(to_img[1, 0] * across + to_img[1, 1] * down + to_img[1, 2], -1, height)
    left, top = jnp.floor(x), jnp.floor(y)
    index = ((top + 1) * stride + left + 1).astype(jnp.int32)
    wx, wy = (x - left)[..., None], (y - top)[..., None]

    def corner(step: int) -> Float[Array, "s s 3"]:
        return pixels.at[index + step].get(mode="promise_in_bounds").astype(jnp.float32)

    high = corner(0) * (1 - wx) + corner(1) * wx
    low = corner(stride) * (1 - wx) + corner(stride + 1) * wx
    return (high * (1 - wy) + low * wy) / 255


def normalise(image_01: Float[FloatArray, "s s 3"]) -> Float[Array, "s s 3"]:
    """Subtracts a mean of 0.5 and divides by a deviation of 0.5: [0, 1] becomes [-1, 1]."""
    return jnp.asarray(image_01) * 2 - 1


def crop_labels(
    joints_m: Float[FloatArray, "n 3"],
    verts_m: Float[FloatArray, "v 3"],
    intrinsics: Float[FloatArray, "3 3"],
    crop_from_img: Float[FloatArray, "2 3"],
    angle_rad: Float[FloatArray, ""],
    size: int,
) -> tuple[Float[Array, "n 2"], Float[Array, "v 3"]]:
    """Landmarks as a fraction of the crop; vertices from the root in MESH_UNIT_M, rotated."""
    landmarks_01 = apply_affine(project(joints_m, intrinsics), crop_from_img) / size
    verts = (jnp.asarray(verts_m) - joints_m[None, ROOT]) / MESH_UNIT_M
    return landmarks_01, rotate_about_optical_axis(verts, angle_rad)


def random_crop(
    key: Key[Array, ""], bbox_px: Float[FloatArray, "4"], config: AugmentConfig
) -> tuple[Float[Array, "2 3"], Float[Array, ""]]:
    """A random `crop_from_img` around the hand's box (x, y, width, height), and its angle.

    The crop is shifted only as far as the rotated box stays inside; where the rotated box is wider
    than the crop, the crop stays centred along that axis.
    """
    scale_key, angle_key, rotation_key, shift_key = jax.random.split(key, 4)
    bbox_px = jnp.asarray(bbox_px)
    hand_wh = jnp.maximum(bbox_px[2:], 1.0)  # An empty mask would divide by zero.
    side = jnp.max(hand_wh) * (
        config.scale + config.scale_jitter * jax.random.uniform(scale_key, minval=-1.0)
    )
    angle = math.radians(config.max_angle_deg) * jax.random.uniform(angle_key, minval=-1.0)
    angle = jnp.where(jax.random.bernoulli(rotation_key, config.rotation_probability), angle, 0.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    rotated_wh = jnp.abs(cosine) * hand_wh + jnp.abs(sine) * hand_wh[::-1]
    box_wh = jnp.stack([side, side])
    max_offset = config.shift * max_shift(box_wh, rotated_wh)
    across, down = max_offset * jax.random.uniform(shift_key, (2,), minval=-1.0)
    offset = jnp.stack([cosine * across - sine * down, sine * across + cosine * down])
    centre = bbox_px[:2] + bbox_px[2:] / 2 + offset
    return crop_from_box(centre, box_wh, jnp.full(2, float(config.size)), angle), angle


def augmented_view(batch: Batch, keys: Key[Array, " b"], config: AugmentConfig) -> View:
    """One random crop of every image, with its labels; deterministic given the keys."""

    def one(image, intrinsics, joints_m, verts_m, bbox_px, key):
        crop_key, color_key = jax.random.split(key)
        crop_from_img, angle = random_crop(crop_key, bbox_px, config)
        strengths = config.brightness, config.contrast, config.saturation, config.hue
        crop = jitter_color(warp(image, crop_from_img, config.size), color_key, *strengths)
        labels = crop_labels(joints_m, verts_m, intrinsics, crop_from_img, angle, config.size)
        return View(normalise(crop), *labels, angle, invert_affine(crop_from_img))

    examples = batch.image, batch.intrinsics, batch.joints_m, batch.verts_m, batch.bbox_px
    return jax.vmap(one)(*examples, keys)


def two_views(
    batch: Batch, key: Key[Array, ""], step: int | Array, config: AugmentConfig
) -> tuple[View, View]:
    """Two random crops of every image of this step.

    `key` is the run's, the same at every step: example, view and step determine each crop's own
    key, so a resumed run is bit-identical, on any number of devices.
    """
    keys = jax.random.split(jax.random.fold_in(key, step), (2, len(batch.image)))
    return augmented_view(batch, keys[0], config), augmented_view(batch, keys[1], config)


def eval_view(batch: Batch, size: int = 128, box_px: float = FREIHAND_CROP_PX) -> View:
    """The fixed centred crop that published implementations evaluate FreiHAND on; deterministic.

    `box_px` is measured in an image of 224 px (100 px x 1.3); in other images the crop box keeps
    its ratio to the shorter side.
    """
    height, width = batch.image.shape[1:3]
    side = box_px * min(height, width) / FREIHAND_IMAGE_PX
    angle = jnp.zeros(())
    crop_from_img = crop_from_box(
        jnp.array([width / 2, height / 2]), jnp.full(2, side), jnp.full(2, float(size)), angle
    )

    def one(image, intrinsics, joints_m, verts_m):
        crop = warp(image, crop_from_img, size)
        labels = crop_labels(joints_m, verts_m, intrinsics, crop_from_img, angle, size)
        return View(normalise(crop), *labels, angle, invert_affine(crop_from_img))

    return jax.vmap(one)(batch.image, batch.intrinsics, batch.joints_m, batch.verts_m)
