"""From whole photos to what the network sees, on the device: crop, turn, shift, colour, labels.

Pure functions that run inside the jitted step; all chance comes from one key per example and view.
Maps are written for one example and batched with `jax.vmap`.

A crop is a turned rectangle of the photo, resampled to `size` px. Pixel centres are on integers and
the rectangle's centre falls on `size / 2`. A positive angle turns the picture's content
counter-clockwise on the screen; 3D labels turn with it about the optical axis.
Axes: b batch, h w photo, s crop side, n landmarks, v vertices.
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
from m3dhmr_jax.data.color import jitter_colour
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
    """How far a training crop strays from the square around the hand's mask.

    Attributes:
        size: side of the crop, px.
        scale, scale_jitter: side of the square over the longer side of the mask's box, and the
            largest deviation from it.
        max_angle_deg, rotation_probability: the crop turns at all, and then by any angle up to this.
        shift: share of the room beside the hand that the crop may wander, 0 to 1.
        brightness, contrast, saturation: factors are drawn from 1 - strength to 1 + strength.
        hue: part of a full turn of the colour circle, in either direction.

    Raises:
        ValueError: if a field is out of range.
    """

    size: int = 128
    scale: float = 1.3
    scale_jitter: float = 0.2
    max_angle_deg: float = 90.0
    rotation_probability: float = 0.6
    shift: float = 1.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4
    hue: float = 0.05

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"augment.size={self.size} must be at least 1: it is a side in pixels")
        if not 0 <= self.scale_jitter < self.scale:
            raise ValueError(
                f"augment.scale_jitter={self.scale_jitter} must be at least 0 and smaller than "
                f"augment.scale={self.scale}: the crop's side is their sum or difference at most"
            )
        if not 0 <= self.max_angle_deg <= 180:
            raise ValueError(
                f"augment.max_angle_deg={self.max_angle_deg} must lie in 0..180: "
                "crops turn by up to this angle in either direction"
            )
        for name in ("rotation_probability", "shift", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}={getattr(self, name)} must be a share in 0..1")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(
                f"augment.hue={self.hue} must lie in 0..0.5: half a turn is the farthest hue"
            )


def crop_from_box(
    centre_px: Float[FloatArray, "2"],
    box_wh_px: Float[FloatArray, "2"],
    crop_wh_px: Float[FloatArray, "2"],
    angle_rad: Float[FloatArray, ""] | float,
) -> Float[Array, "2 3"]:
    """Photo pixels to crop pixels for the rectangle of size `box_wh_px` around `centre_px`.

    `crop = crop_wh / 2 + diag(crop_wh / box_wh) R(-angle) (photo - centre)`.
    """
    cosine, sine = jnp.cos(angle_rad), jnp.sin(angle_rad)
    zoom = jnp.asarray(crop_wh_px) / box_wh_px
    linear = zoom[:, None] * jnp.array([[cosine, sine], [-sine, cosine]])
    offset = crop_wh_px / 2 - (linear[:, 0] * centre_px[0] + linear[:, 1] * centre_px[1])
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def room(
    box_wh_px: Float[FloatArray, "2"], content_wh_px: Float[FloatArray, "2"]
) -> Float[Array, "2"]:
    """How far a box may move along each axis before centred content touches its border."""
    return jnp.maximum((jnp.asarray(box_wh_px) - content_wh_px) / 2, 0.0)


def warp(
    image: UInt8[FloatArray, "h w 3"], crop_from_img: Float[FloatArray, "2 3"], size: int
) -> Float[Array, "s s 3"]:
    """The crop in [0, 1], read bilinearly; outside the photo it is black.

    It reads four pixels wherever it is told to: crops that shrink the photo more than twofold
    alias, so photos much larger than FreiHAND's should be reduced before they come here.
    """
    height, width, _ = image.shape
    # A border of zeros, and coordinates that end on it, spare every test for the edge.
    stride = width + 3
    pixels = jnp.pad(jnp.asarray(image), ((1, 2), (1, 2), (0, 0))).reshape(-1, 3)
    to_img = invert_affine(crop_from_img)
    across, down = jnp.arange(size, dtype=jnp.float32)[None, :], jnp.arange(size)[:, None]
    x = jnp.clip(to_img[0, 0] * across + to_img[0, 1] * down + to_img[0, 2], -1, width)
    y = jnp.clip(to_img[1, 0] * across + to_img[1, 1] * down + to_img[1, 2], -1, height)
    left, top = jnp.floor(x), jnp.floor(y)
    index = ((top + 1) * stride + left + 1).astype(jnp.int32)
    right_share, low_share = (x - left)[..., None], (y - top)[..., None]

    def corner(step: int) -> Float[Array, "s s 3"]:
        return pixels.at[index + step].get(mode="promise_in_bounds").astype(jnp.float32)

    high = corner(0) * (1 - right_share) + corner(1) * right_share
    low = corner(stride) * (1 - right_share) + corner(stride + 1) * right_share
    return (high * (1 - low_share) + low * low_share) / 255


def normalise(image_01: Float[FloatArray, "s s 3"]) -> Float[Array, "s s 3"]:
    """Takes mean 0.5 and deviation 0.5 out: [0, 1] becomes [-1, 1]."""
    return jnp.asarray(image_01) * 2 - 1


def crop_labels(
    joints_m: Float[FloatArray, "n 3"],
    verts_m: Float[FloatArray, "v 3"],
    intrinsics: Float[FloatArray, "3 3"],
    crop_from_img: Float[FloatArray, "2 3"],
    angle_rad: Float[FloatArray, ""],
    size: int,
) -> tuple[Float[Array, "n 2"], Float[Array, "v 3"]]:
    """Landmarks as a fraction of the crop; vertices from the root in MESH_UNIT_M, turned along."""
    landmarks_01 = apply_affine(project(joints_m, intrinsics), crop_from_img) / size
    verts = (jnp.asarray(verts_m) - joints_m[None, ROOT]) / MESH_UNIT_M
    return landmarks_01, rotate_about_optical_axis(verts, angle_rad)


def draw_crop(
    key: Key[Array, ""], bbox_px: Float[FloatArray, "4"], config: AugmentConfig
) -> tuple[Float[Array, "2 3"], Float[Array, ""]]:
    """A random `crop_from_img` around the hand's box (x, y, width, height), and its angle.

    The crop wanders only as far as the turned box stays inside; where the turned box is wider than
    the crop, the crop stays centred along that axis.
    """
    scale_key, angle_key, turn_key, shift_key = jax.random.split(key, 4)
    bbox_px = jnp.asarray(bbox_px)
    hand_wh = jnp.maximum(bbox_px[2:], 1.0)  # An empty mask would divide by zero.
    side = jnp.max(hand_wh) * (
        config.scale + config.scale_jitter * jax.random.uniform(scale_key, minval=-1.0)
    )
    angle = math.radians(config.max_angle_deg) * jax.random.uniform(angle_key, minval=-1.0)
    angle = jnp.where(jax.random.bernoulli(turn_key, config.rotation_probability), angle, 0.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    turned_wh = jnp.abs(cosine) * hand_wh + jnp.abs(sine) * hand_wh[::-1]
    box_wh = jnp.stack([side, side])
    reach = config.shift * room(box_wh, turned_wh)
    across, down = reach * jax.random.uniform(shift_key, (2,), minval=-1.0)
    wander = jnp.stack([cosine * across - sine * down, sine * across + cosine * down])
    centre = bbox_px[:2] + bbox_px[2:] / 2 + wander
    return crop_from_box(centre, box_wh, jnp.full(2, float(config.size)), angle), angle


def augmented_view(batch: Batch, keys: Key[Array, " b"], config: AugmentConfig) -> View:
    """One random crop of every photo, its labels moved along; the same key gives the same bits."""

    def one(image, intrinsics, joints_m, verts_m, bbox_px, key):
        crop_key, colour_key = jax.random.split(key)
        crop_from_img, angle = draw_crop(crop_key, bbox_px, config)
        strengths = config.brightness, config.contrast, config.saturation, config.hue
        crop = jitter_colour(warp(image, crop_from_img, config.size), colour_key, *strengths)
        labels = crop_labels(joints_m, verts_m, intrinsics, crop_from_img, angle, config.size)
        return View(normalise(crop), *labels, angle, invert_affine(crop_from_img))

    photo = batch.image, batch.intrinsics, batch.joints_m, batch.verts_m, batch.bbox_px
    return jax.vmap(one)(*photo, keys)


def two_views(
    batch: Batch, key: Key[Array, ""], step: int | Array, config: AugmentConfig
) -> tuple[View, View]:
    """Two random crops of every photo of this step.

    `key` is the run's, the same at every step: example, view and step name each crop's own key,
    so a resumed run sees the same bits, on any number of devices.
    """
    keys = jax.random.split(jax.random.fold_in(key, step), (2, len(batch.image)))
    return augmented_view(batch, keys[0], config), augmented_view(batch, keys[1], config)


def eval_view(batch: Batch, size: int = 128, box_px: float = FREIHAND_CROP_PX) -> View:
    """The fixed centred square that the peers evaluate FreiHAND on (100 px x 1.3); no chance.

    `box_px` is measured in a photo of 224 px; in other photos the square keeps its share of the
    shorter side.
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
