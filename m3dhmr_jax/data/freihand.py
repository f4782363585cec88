"""FreiHAND's official folder layout: images, masks and annotation files.

    training/rgb/%08d.jpg    1 to 4 times n images: image i shows the hand of annotation i mod n,
                             each time with another background
    training/mask/%08d.jpg   n masks, for the first n images
    training_{K,xyz,verts,scale}.json                                      n records each
    evaluation/rgb/%08d.jpg, evaluation_{K,xyz,verts,scale}.json           one image per record

Two further parts are optional, and the official release lacks them:

    training/coverage/%08d.png   n images: 255 where the hand, the arm or a thing hides the
                                 background, 0 where nothing does
    training_quality.json        n numbers above 0 and up to 1: how far each label is to be trusted

A `*_mano.json` replaces a missing `*_verts.json`; see `mano_annotations`.
Camera frame and joint order as in m3dhmr_jax.types. Axes: a annotations, n landmarks, v vertices.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.data.json_stream import read_records
from m3dhmr_jax.data.mano_annotations import posed_vertices_m, read_parameters
from m3dhmr_jax.data.units import check_metres
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.files import hint_if_deeper
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

MAX_VERSIONS = 4  # Backgrounds of each training image in the official release.
EVALUATION_BOX_PX = 130  # Published implementations crop evaluation images to 100 px x 1.3.
FOLDERS = {"train": "training", "test": "evaluation"}
_REQUIRED = {"K": (3, 3), "xyz": (N_JOINTS, 3), "verts": (N_VERTICES, 3), "scale": ()}
_SHAPES = _REQUIRED | {"quality": ()}
# Joints regressed from meshes of the right topology are within a few millimetres.
MAX_JOINT_DISTANCE_M = 0.01
_SAMPLE_BYTES = 1 << 20
_FILE_NAME = re.compile(r"\d{8}\.(jpg|png)")
_COVERAGE = "training/coverage"


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """The labels of one split, one row for each annotation."""

    intrinsics: Float[np.ndarray, "a 3 3"]
    joints_m: Float[np.ndarray, "a n 3"]
    verts_m: Float[np.ndarray, "a v 3"]
    scale_m: Float[np.ndarray, " a"]  # Length of the reference bone.
    quality: Float[np.ndarray, " a"]  # How far to trust a label, above 0 and up to 1.


def image_name(split: str, index: int) -> str:
    """The official name of an image, relative to the folder: `training/rgb/00000012.jpg`."""
    return f"{FOLDERS[split]}/rgb/{index:08d}.jpg"


def count_images(folder: Path, split: str) -> int:
    """The number of images of a split.

    Raises:
        UserError: if the folder, or an image between the first and the last, is missing.
    """
    return _count_numbered(folder, f"{FOLDERS[split]}/rgb")


def count_annotations(folder: Path, split: str) -> int:
    """The number of records that each annotation file of a split must have.

    Raises:
        UserError: if images or masks are missing, or the training images are not 1 to 4 times the
            masks.
    """
    n_images = count_images(folder, split)
    if split == "test":
        return n_images
    n = _count_numbered(folder, "training/mask")
    if n_images % n or not 1 <= n_images // n <= MAX_VERSIONS:
        raise UserError(
            f"{folder}: training/rgb has {n_images} images and training/mask has {n} masks; there "
            f"must be 1 to {MAX_VERSIONS} times as many images as masks. The folder is incomplete: "
            "unpack or render it again"
        )
    return n


def coverage_paths(folder: Path) -> list[Path]:
    """The coverage of each training annotation; empty if the folder has no coverage.

    Raises:
        UserError: if there are not as many images of it as masks.
    """
    if not (folder / _COVERAGE).is_dir():
        return []
    n, n_masks = (
        _count_numbered(folder, inner, suffix)
        for inner, suffix in ((_COVERAGE, ".png"), ("training/mask", ".jpg"))
    )
    if n != n_masks:
        raise UserError(
            f"{folder}: {_COVERAGE} has {n} images and training/mask has {n_masks} masks; there "
            "must be one image for each mask: render the folder again, or delete the former"
        )
    return [folder / _COVERAGE / f"{i:08d}.png" for i in range(n)]


def _count_numbered(root: Path, inner: str, suffix: str = ".jpg") -> int:
    """The number of images 00000000, 00000001, ... in a folder; none may be missing."""
    folder = root / inner
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected FreiHAND's official layout (unpack the archives, "
            f"or render a synthetic set with m3dhmr synthesize){hint_if_deeper(root, inner)}"
        )
    numbered = [name for name in os.listdir(folder) if _FILE_NAME.fullmatch(name)]
    names = {name for name in numbered if name.endswith(suffix)}
    absent = next((i for i in range(len(names)) if f"{i:08d}{suffix}" not in names), None)
    if not names or absent is not None:
        raise UserError(
            f"{folder}: {absent or 0:08d}{suffix} is missing ({len(names)} numbered images are "
            "there); the folder is incomplete: unpack or render it again"
        )
    return len(names)


def annotation_paths(folder: Path, split: str) -> dict[str, Path]:
    """The annotation files of a split, by name: with verts, or with mano where verts is missing.

    Raises:
        UserError: if one is missing, naming it and where to get it.
    """
    paths = {name: folder / f"{FOLDERS[split]}_{name}.json" for name in (*_REQUIRED, "mano")}
    del paths["verts" if paths["mano"].is_file() and not paths["verts"].is_file() else "mano"]
    for path in paths.values():
        if not path.is_file():
            reason = "it is part of FreiHAND's official layout"
            if split == "test":
                reason += "; the archive FreiHAND_pub_v2_eval.zip has it, for the same folder"
            reason += hint_if_deeper(folder, path.name)
            raise UserError(f"{path}: no such annotation file; {reason}")
    return paths


def read_annotations(folder: Path, split: str, hand: HandModel | None = None) -> Annotations:
    """Reads and checks the annotation files of a split; `hand` turns mano parameters into meshes.

    Raises:
        UserError: if a file is missing or truncated, its number of records does not match the
            images, or a record has another shape; if hands are not of a hand's size and distance
            in metres; if there are only parameters and no hand, or not the hand that they belong
            to.
    """
    n, paths = count_annotations(folder, split), annotation_paths(folder, split)
    values = {name: _read_file(path, name, n, split) for name, path in paths.items()}
    for name in ("xyz", "verts"):
        if name in values:
            check_metres(str(paths[name]), values[name])
    if "mano" in values:
        values["verts"] = _pose(paths["mano"], hand, values["mano"], values["K"], values["xyz"])
    quality = _read_quality(folder, split, n)
    return Annotations(values["K"], values["xyz"], values["verts"], values["scale"], quality)


def quality_path(folder: Path, split: str) -> Path:
    return folder / f"{FOLDERS[split]}_quality.json"


def _read_quality(folder: Path, split: str, n: int) -> Float[np.ndarray, " a"]:
    """The quality of each annotation; 1 if there is no such file."""
    path = quality_path(folder, split)
    if not path.is_file():
        return np.ones(n, np.float32)
    quality = _read_file(path, "quality", n, split)
    bad = np.flatnonzero(~((quality > 0) & (quality <= 1)))
    if len(bad):
        raise UserError(
            f"{path}: record {bad[0]} is {quality[bad[0]]:g}; a quality must be above 0 and at "
            "most 1: it multiplies the loss of its label"
        )
    return quality


def _read_file(path: Path, name: str, n: int, split: str) -> np.ndarray:
    try:
        records = read_parameters(path) if name == "mano" else read_records(path, _SHAPES[name])
    except UserError as error:
        raise UserError(f"{error}. Expected {n} records") from error
    if len(records) != n:
        counted = "masks" if split == "train" else "images"
        raise UserError(
            f"{path}: {len(records)} records, expected {n}, the number of {counted} in "
            f"{FOLDERS[split]}: annotations and images must be of the same release; unpack or "
            "render the folder again"
        )
    return records


def _pose(
    path: Path,
    hand: HandModel | None,
    parameters: Float[np.ndarray, "a 61"],
    intrinsics: Float[np.ndarray, "a 3 3"],
    joints_m: Float[np.ndarray, "a n 3"],
) -> Float[np.ndarray, "a v 3"]:
    needs = "MANO: pass your MANO_RIGHT.pkl with --config.hand (or m3dhmr prepare --hand)"
    if hand is None:
        raise UserError(
            f"{path}: without an annotation file of vertices, its parameters become vertices "
            f"only through {needs}"
        )
    try:
        verts_m = posed_vertices_m(hand, parameters, intrinsics)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    distance_m = joint_distance_m(hand, verts_m, joints_m)
    if distance_m > MAX_JOINT_DISTANCE_M:
        raise UserError(
            f"{path}: posed with the configured hand, its parameters give joints that are "
            f"{1000 * distance_m:.0f} mm from those of {path.name.replace('mano', 'xyz')}: they "
            f"belong to another hand model. FreiHAND's need {needs}"
        )
    return verts_m


def joint_distance_m(
    hand: HandModel, verts_m: Float[np.ndarray, "a v 3"], joints_m: Float[np.ndarray, "a n 3"]
) -> float:
    """The median distance of the joints that `hand` regresses from meshes to `joints_m`."""
    distances_m = np.linalg.norm(hand.joint_regressor @ verts_m - joints_m, axis=2).mean(axis=1)
    return float(np.median(distances_m))


def mask_box_px(mask_path: Path) -> Float[np.ndarray, "4"]:
    """The box (x, y, width, height) around a mask; specks under a tenth of the hand are ignored.

    Raises:
        UserError: if the mask is unreadable or empty.
    """
    mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise UserError(f"{mask_path}: not a readable image; get the file again")
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    blobs = stats[1:]  # The first is the background.
    if not len(blobs):
        raise UserError(f"{mask_path}: the mask is empty; it must show where the hand is")
    blobs = blobs[10 * blobs[:, cv2.CC_STAT_AREA] >= blobs[:, cv2.CC_STAT_AREA].max()]
    start = blobs[:, :2].min(axis=0)
    stop = (blobs[:, :2] + blobs[:, 2:4]).max(axis=0)
    return np.concatenate([start, stop - start]).astype(np.float32)


def centred_box_px(height: int, width: int) -> Float[np.ndarray, "4"]:
    """The fixed box of the evaluation images, for which FreiHAND has no masks."""
    side = EVALUATION_BOX_PX
    return np.array([(width - side) / 2, (height - side) / 2, side, side], np.float32)


def fingerprint(folder: Path) -> str:
    """A hash of a folder's content, independent of its path and its files' times.

    It covers the name and size of every file and the first and last megabyte of each annotation
    file. Optional parts count only where they are.

    Raises:
        UserError: if the folder is incomplete, as `count_annotations` and `annotation_paths`.
    """
    digest = hashlib.sha256()
    for split, part in FOLDERS.items():
        count_annotations(folder, split)
        paths = list(annotation_paths(folder, split).values())
        if quality_path(folder, split).is_file():
            paths.append(quality_path(folder, split))
        for path in paths:
            n_bytes = path.stat().st_size
            digest.update(f"{path.name} {n_bytes}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE_BYTES))
                file.seek(max(0, n_bytes - _SAMPLE_BYTES))
                digest.update(file.read())
        for kind in ("rgb", "mask") if split == "train" else ("rgb",):
            n = _count_numbered(folder, f"{part}/{kind}")
            sizes = [(folder / part / kind / f"{i:08d}.jpg").stat().st_size for i in range(n)]
            digest.update(f"{part}/{kind} ".encode() + np.asarray(sizes, np.int64).tobytes())
    if paths := coverage_paths(folder):
        sizes = [path.stat().st_size for path in paths]
        digest.update(b"coverage " + np.asarray(sizes, np.int64).tobytes())
    return digest.hexdigest()
