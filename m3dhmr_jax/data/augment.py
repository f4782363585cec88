"""From full images to the network's input, on the device: crop, rotation, shift, color, labels.

Pure functions that run inside the jitted step; all randomness comes from one key per example and
view. Functions are written for one example and batched with `jax.vmap`.

Crops and angles are those of `data.crop`; 3D labels are rotated with the crop about the optical
axis.
Axes: b batch, h w image, s crop side, n landmarks, v vertices.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from m3dhmr_jax.camera.pinhole import (
    apply_affine,
    invert_affine,
    project,
    rotate_about_optical_axis,
)
from m3dhmr_jax.data.appearance import (
    UNCHANGED,
    AppearanceConfig,
    change_pixels,
    mix_amplitudes,
    sometimes,
)
from m3dhmr_jax.data.background import exchange_background, random_background
from m3dhmr_jax.data.color import jitter_color
from m3dhmr_jax.data.crop import crop_from_box, max_shift, warp
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import (
    FREIHAND_CROP_PX,
    FREIHAND_IMAGE_PX,
    MESH_UNIT_M,
    MIDDLE_BASE,
    ROOT,
    Batch,
    FloatArray,
    View,
)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """The range of random crops and colors; the config has the values.

    Attributes:
        size: side of the crop, px.
        upright: whether crops are around the mesh and turned until the hand points upwards, as
            prediction looks at hands, or around the mask and as the image is, as for FreiHAND.
        scale, scale_jitter: side of the crop box over the longer side of that box, and the largest
            deviation from it.
        max_angle_deg, rotation_probability: a crop is rotated with this probability, by any angle
            up to the largest.
        stretch: the image is made wider and less high, or the reverse, by up to this fraction.
        shift: fraction of the largest shift that keeps the hand inside the crop, 0 to 1.
        brightness, contrast, saturation: factors are drawn from 1 - strength to 1 + strength.
        hue: fraction of a full turn of the color circle, in either direction.
        appearance: all further changes of pixels.

    Raises:
        UserError: if a field is out of range.
    """

    size: int
    upright: bool
    scale: float
    scale_jitter: float
    max_angle_deg: float
    rotation_probability: float
    stretch: float
    shift: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    appearance: AppearanceConfig = UNCHANGED

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
        if not 0 <= self.stretch <= 0.5:
            raise UserError(
                f"augment.stretch={self.stretch} must lie in 0..0.5: it is the largest change of "
                "an image's width and height"
            )
        if not 0 <= self.hue <= 0.5:
            raise UserError(
                f"augment.hue={self.hue} must lie in 0..0.5: half a turn of the color circle "
                "is the largest change"
            )


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


class TurnedBox(NamedTuple):
    """A box around a hand whose sides are along and across a direction."""

    centre_px: Float[FloatArray, "2"]
    wh_px: Float[FloatArray, "2"]
    # Where up is in the box, positive counter-clockwise on the screen; 0 is up in the image.
    direction_rad: Float[FloatArray, ""] | float


def mask_box(bbox_px: Float[FloatArray, "4"]) -> TurnedBox:
    """The box (x, y, width, height) of a mask."""
    bbox_px = jnp.asarray(bbox_px)
    return TurnedBox(bbox_px[:2] + bbox_px[2:] / 2, bbox_px[2:], 0.0)


def upright_box(
    joints_m: Float[FloatArray, "n 3"],
    verts_m: Float[FloatArray, "v 3"],
    intrinsics: Float[FloatArray, "3 3"],
) -> TurnedBox:
    """The box of a mesh, from the wrist upwards to the base of the middle finger.

    The twin of `predict.crops.crops_of_points`: prediction looks at hands in such boxes.
    """
    wrist_px, middle_px = project(jnp.asarray(joints_m)[(ROOT, MIDDLE_BASE), :], intrinsics)
    direction = jnp.arctan2(wrist_px[0] - middle_px[0], wrist_px[1] - middle_px[1])
    cosine, sine = jnp.cos(direction), jnp.sin(direction)
    upright = jnp.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
    turned_px = apply_affine(project(verts_m, intrinsics), upright)
    low, high = turned_px.min(axis=0), turned_px.max(axis=0)
    (centre_px,) = apply_affine((low + high)[None] / 2, invert_affine(upright))
    return TurnedBox(centre_px + 0.5, high - low, direction)


def random_crop(
    key: Key[Array, ""], box: TurnedBox, config: AugmentConfig
) -> tuple[Float[Array, "2 3"], Float[Array, ""]]:
    """A random `crop_from_img` around the hand's box, and the angle by which it is rotated.

    The crop is shifted only as far as the rotated box stays inside; where the rotated box is wider
    than the crop, the crop stays centred along that axis.
    """
    scale_key, angle_key, rotation_key, shift_key = jax.random.split(key, 4)
    hand_wh = jnp.maximum(box.wh_px, 1.0)  # An empty mask would divide by zero.
    side = jnp.max(hand_wh) * (
        config.scale + config.scale_jitter * jax.random.uniform(scale_key, minval=-1.0)
    )
    tilt = math.radians(config.max_angle_deg) * jax.random.uniform(angle_key, minval=-1.0)
    tilt = jnp.where(jax.random.bernoulli(rotation_key, config.rotation_probability), tilt, 0.0)
    rotated_wh = jnp.abs(jnp.cos(tilt)) * hand_wh + jnp.abs(jnp.sin(tilt)) * hand_wh[::-1]
    box_wh = jnp.stack([side, side])
    max_offset = config.shift * max_shift(box_wh, rotated_wh)
    across, down = max_offset * jax.random.uniform(shift_key, (2,), minval=-1.0)
    angle = tilt - box.direction_rad
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    offset = jnp.stack([cosine * across - sine * down, sine * across + cosine * down])
    centre = box.centre_px + offset
    return crop_from_box(centre, box_wh, jnp.full(2, float(config.size)), angle), angle


def random_stretch(key: Key[Array, ""], strength: float) -> Float[Array, "2"]:
    """Factors of an image's width and height, of which one grows as the other shrinks."""
    amount = strength * jax.random.uniform(key, minval=-1.0)
    return jnp.exp(jnp.stack([amount, -amount]))


def _stretched(batch: Batch, stretch: Float[Array, "b 2"]) -> Batch:
    """The labels of stretched images, in which hands are as wide and as long as they look.

    A stretched image is that of stretched hands by the same camera, whose centre is elsewhere.
    """
    factors = jnp.concatenate([stretch, jnp.ones((len(stretch), 1))], axis=1)[:, None]
    return batch._replace(
        intrinsics=jnp.swapaxes(factors, 1, 2) * batch.intrinsics / factors,
        joints_m=factors * batch.joints_m,
        verts_m=factors * batch.verts_m,
        bbox_px=jnp.tile(stretch, 2) * batch.bbox_px,
    )


def augmented_view(
    batch: Batch,
    keys: Key[Array, " b"],
    config: AugmentConfig,
    stretch: Float[Array, "b 2"] | None = None,
) -> View:
    """One random crop of every image, with its labels; deterministic given the keys.

    `stretch` has factors of each image's width and height; default: 1.
    """
    split = jax.vmap(lambda key: jax.random.split(key, 5))(keys)
    crop_keys, color_keys, background_keys, amplitude_keys, pixel_keys = jnp.moveaxis(split, 1, 0)
    labels = batch if stretch is None else _stretched(batch, stretch)

    def place(intrinsics, joints_m, verts_m, bbox_px, key):
        mesh = joints_m, verts_m, intrinsics
        box = upright_box(*mesh) if config.upright else mask_box(bbox_px)
        crop_from_img, angle = random_crop(key, box, config)
        moved = crop_labels(joints_m, verts_m, intrinsics, crop_from_img, angle, config.size)
        return crop_from_img, angle, *moved

    crop_from_img, angle, landmarks_01, verts = jax.vmap(place)(
        labels.intrinsics, labels.joints_m, labels.verts_m, labels.bbox_px, crop_keys
    )
    if stretch is not None:
        crop_from_img = crop_from_img.at[:, :, :2].multiply(stretch[:, None])

    def finish(crop, color_key, pixel_key):
        strengths = config.brightness, config.contrast, config.saturation, config.hue
        crop = jitter_color(crop, color_key, *strengths)
        return normalise(change_pixels(crop, pixel_key, config.appearance))

    crops = _scenes(batch, crop_from_img, background_keys, config)
    crops = mix_amplitudes(crops, amplitude_keys, config.appearance)
    images = jax.vmap(finish)(crops, color_keys, pixel_keys)
    return View(images, landmarks_01, verts, angle, jax.vmap(invert_affine)(crop_from_img))


def _scenes(
    batch: Batch,
    crop_from_img: Float[Array, "b 2 3"],
    keys: Key[Array, " b"],
    config: AugmentConfig,
) -> Float[Array, "b s s 3"]:
    """The crops, some with a background from the batch's previous image."""
    probability, strength = config.appearance.background

    def cut(image, matrix):
        return warp(image, matrix, config.size)

    def cut_and_exchange(image, coverage, matrix, other, other_bbox_px, key):
        which, where, color = jax.random.split(key, 3)
        crop = cut(jnp.concatenate([image, coverage[..., None]], axis=-1), matrix)
        background = random_background(where, other, other_bbox_px, config.size)
        background = jitter_color(background, color, strength, strength, strength, 0.0)
        exchanged = exchange_background(crop[..., :3], crop[..., 3], background)
        return sometimes(which, probability, exchanged, crop[..., :3])

    if not probability or batch.coverage is None:
        return jax.vmap(cut)(batch.image, crop_from_img)
    others = jnp.roll(batch.image, 1, axis=0), jnp.roll(batch.bbox_px, 1, axis=0)
    return jax.vmap(cut_and_exchange)(batch.image, batch.coverage, crop_from_img, *others, keys)


def two_views(
    batch: Batch, key: Key[Array, ""], step: int | Array, config: AugmentConfig
) -> tuple[View, View]:
    """Two random crops of every image of this step.

    `key` is the run's, the same at every step: example, view and step determine each crop's own
    key, so a resumed run is bit-identical, on any number of devices. Both views are of the same
    stretched image, so that their meshes differ by a rotation only.
    """
    keys = jax.random.split(jax.random.fold_in(key, step), (3, len(batch.image)))
    stretch = None
    if config.stretch:
        stretch = jax.vmap(lambda key: random_stretch(key, config.stretch))(keys[2])
    first, second = (augmented_view(batch, keys[i], config, stretch) for i in (0, 1))
    return first, second


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
