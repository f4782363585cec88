"""Hands in photos: for each photo a picture of the answer and the mesh as .obj.

A photo is taken as a crop of one right hand. Its camera is not known, so a field of view is assumed
and the mesh put where its landmarks are seen.
Axes: b batch, s crop side, h w photo.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import jax
import numpy as np
import tqdm
from jaxtyping import Float, UInt8

from m3dhmr_jax.builders import create_network, load_hand, trained_state
from m3dhmr_jax.camera import invert_affine
from m3dhmr_jax.data.augment import (
    FREIHAND_BOX_PX,
    FREIHAND_PHOTO_PX,
    crop_from_box,
    normalise,
)
from m3dhmr_jax.inference import CameraHands, predict, to_camera
from m3dhmr_jax.types import Config
from m3dhmr_jax.visualize.obj import write_obj
from m3dhmr_jax.visualize.overlay import overlay

PHOTO_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
Photo = UInt8[np.ndarray, "h w 3"]


def predict_photos(config: Config, workdir: Path, images: Sequence[str], out: Path) -> None:
    """Writes `NAME_overlay.jpg` and `NAME.obj` into `out` for every photo of `images`.

    Files that are no images are left out, and named at the end.

    Raises:
        FileNotFoundError: if there is no such file or folder, no photo, or no checkpoint.
        ValueError: if two photos have the same name, or a file is no image.
    """
    paths = find_photos(images)
    hand = load_hand(config)
    network = create_network(config, hand)
    state = trained_state(config, network, workdir)
    size = network.image_size

    @jax.jit
    def answer(crops_01, img_from_crop, intrinsics) -> CameraHands:
        crops = jax.vmap(normalise)(crops_01)
        prediction = predict(network.eval_graphdef, state.eval_params, state.stats, crops)
        return to_camera(prediction, img_from_crop, intrinsics, hand.joint_regressor, size)

    out.mkdir(parents=True, exist_ok=True)
    unreadable: list[Path] = []
    with tqdm.tqdm(total=len(paths), unit="photo") as bar:
        stream = read_photos(paths, unreadable)
        while batch := list(itertools.islice(stream, config.predict.batch_size)):
            photos = [photo for _, photo in batch]
            boxes = [crop_matrix(photo, size) for photo in photos]
            cameras = [intrinsics_of(p, config.predict.field_of_view_deg) for p in photos]
            crops = [crop(*pair, size) for pair in zip(photos, boxes, strict=True)]
            filler = config.predict.batch_size - len(batch)  # One shape: compiled once.
            stacked = (
                np.stack(rows + rows[:1] * filler)
                for rows in (crops, [invert_affine(b) for b in boxes], cameras)
            )
            hands = jax.device_get(answer(*stacked))
            for (path, photo), camera, uv_px, verts_m in zip(
                batch, cameras, hands.uv_px, hands.verts_m, strict=False
            ):
                picture = overlay(photo, uv_px, verts_m, hand.faces, camera)
                cv2.imwrite(str(out / f"{path.stem}_overlay.jpg"), picture[..., ::-1])
                write_obj(out / f"{path.stem}.obj", verts_m, hand.faces)
                bar.update()
    print(f"{len(paths) - len(unreadable)} hands written to {out}")
    if unreadable:
        raise ValueError(
            f"{len(unreadable)} of {len(paths)} files are not images and were left out: "
            f"{', '.join(map(str, unreadable))}"
        )


def find_photos(images: Sequence[str]) -> list[Path]:
    """Files as they are given, and the photos of folders, by name.

    Raises:
        FileNotFoundError: if something is not there, or there is no photo at all.
        ValueError: if two photos have the same name, as their results would.
    """
    paths: list[Path] = []
    for image in map(Path, images):
        if image.is_dir():
            files = (p for p in image.iterdir() if p.is_file())
            paths += sorted(p for p in files if p.suffix.lower() in PHOTO_SUFFIXES)
        elif image.is_file():
            paths.append(image)
        else:
            raise FileNotFoundError(f"{image}: no such photo or folder of photos")
    if not paths:
        raise FileNotFoundError(
            f"no photo in {list(images)}: name photos or folders of them with --images"
        )
    twice = sorted(name for name, count in Counter(p.stem for p in paths).items() if count > 1)
    if twice:
        raise ValueError(
            f"several photos are named {', '.join(twice)}, and results are named after photos: "
            "use one folder at a time, or another name"
        )
    return paths


def read_photos(paths: Sequence[Path], unreadable: list[Path]) -> Iterator[tuple[Path, Photo]]:
    """The photos in RGB, turned as their EXIF data says; `unreadable` gathers what is no image."""
    for path in paths:
        try:
            photo = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            photo = None
        if photo is None:
            unreadable.append(path)
        else:
            yield path, photo[..., ::-1]


def crop_matrix(photo: Photo, size: int) -> Float[np.ndarray, "2 3"]:
    """`crop_from_img` of the square around the whole photo.

    A photo of FreiHAND's size is taken as one of FreiHAND: the square that evaluation looks at.
    """
    height, width, _ = photo.shape
    is_freihand = height == width == FREIHAND_PHOTO_PX
    side = FREIHAND_BOX_PX if is_freihand else max(height, width)
    centre = np.array([width / 2, height / 2], np.float32)
    wh = np.full(2, side, np.float32)
    return np.asarray(crop_from_box(centre, wh, np.full(2, size, np.float32), 0.0))


def crop(
    photo: Photo, crop_from_img: Float[np.ndarray, "2 3"], size: int
) -> Float[np.ndarray, "s s 3"]:
    """The crop in [0, 1], smoothed before it is read where it shrinks the photo; black outside."""
    shrink = 1 / math.hypot(*crop_from_img[:, 0])
    if shrink > 2:
        photo = cv2.GaussianBlur(photo, (0, 0), 0.35 * shrink)
    pixels = cv2.warpAffine(photo, crop_from_img, (size, size), flags=cv2.INTER_LINEAR)
    return pixels.astype(np.float32) / 255


def intrinsics_of(photo: Photo, field_of_view_deg: float) -> Float[np.ndarray, "3 3"]:
    """K of a camera that sees `field_of_view_deg` across the photo's shorter side.

    Raises:
        ValueError: if the angle is not between 0 and 180 degrees.
    """
    if not 0 < field_of_view_deg < 180:
        raise ValueError(
            f"predict.field_of_view_deg={field_of_view_deg} must lie between 0 and 180 degrees"
        )
    height, width, _ = photo.shape
    focal = 0.5 * min(height, width) / math.tan(math.radians(field_of_view_deg) / 2)
    return np.array(
        [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float32
    )
