"""FreiHAND's official folder layout: which files there are, and what the annotations say.

    training/rgb/%08d.jpg    1 to 4 times n images: image i shows the hand of annotation i mod n,
                             each time before another background
    training/mask/%08d.jpg   n masks, for the first n images
    training_{K,xyz,verts,scale}.json                                      lists of n
    evaluation/rgb/%08d.jpg, evaluation_{K,xyz,verts,scale}.json           one image for each

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

from m3dhmr_jax.data.json_records import read_records
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

MAX_VERSIONS = 4  # Background versions of each training photo in the official release.
EVALUATION_BOX_PX = 130  # The peers' fixed crop on the evaluation photos, 100 px times 1.3.
PARTS = {"train": "training", "test": "evaluation"}
_SHAPES = {"K": (3, 3), "xyz": (N_JOINTS, 3), "verts": (N_VERTICES, 3), "scale": ()}
_SAMPLE_BYTES = 1 << 20
_FILE_NAME = re.compile(r"\d{8}\.jpg")


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """The labels of one split, one row for each annotation."""

    intrinsics: Float[np.ndarray, "a 3 3"]
    xyz_m: Float[np.ndarray, "a n 3"]
    verts_m: Float[np.ndarray, "a v 3"]
    scale_m: Float[np.ndarray, " a"]  # Length of the reference bone.


def image_name(split: str, index: int) -> str:
    """The official name of an image, relative to the folder: `training/rgb/00000012.jpg`."""
    return f"{PARTS[split]}/rgb/{index:08d}.jpg"


def count_images(folder: Path, split: str) -> int:
    """The number of photos of a split.

    Raises:
        FileNotFoundError: if the folder, or a photo between the first and the last, is missing.
    """
    return _count_numbered(folder / PARTS[split] / "rgb")


def count_annotations(folder: Path, split: str) -> int:
    """The number of records that each annotation list of a split must have.

    Raises:
        FileNotFoundError: if photos or masks are missing.
        ValueError: if the training photos are not 1 to 4 times the masks.
    """
    n_images = count_images(folder, split)
    if split == "test":
        return n_images
    n = _count_numbered(folder / "training" / "mask")
    if n_images % n or not 1 <= n_images // n <= MAX_VERSIONS:
        raise ValueError(
            f"{folder}: training/rgb has {n_images} photos and training/mask has {n} masks; there "
            f"must be 1 to {MAX_VERSIONS} times as many photos as masks. The folder is incomplete: "
            "unpack or generate it again"
        )
    return n


def _count_numbered(folder: Path) -> int:
    """How many files 00000000.jpg, 00000001.jpg, ... a folder has; none may be left out."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; expected FreiHAND's official layout (unpack the archives, "
            "or write a synthetic set with python -m m3dhmr_jax.data.synthetic)"
        )
    names = {name for name in os.listdir(folder) if _FILE_NAME.fullmatch(name)}
    absent = next((i for i in range(len(names)) if f"{i:08d}.jpg" not in names), None)
    if not names or absent is not None:
        raise FileNotFoundError(
            f"{folder}: {absent or 0:08d}.jpg is missing ({len(names)} numbered photos are there); "
            "the folder is incomplete: unpack or generate it again"
        )
    return len(names)


def check_lists_are_there(folder: Path, split: str) -> None:
    """Refuses a folder that lacks an annotation list of a split.

    Raises:
        FileNotFoundError: naming the file and where to get it.
    """
    for name in _SHAPES:
        path = folder / f"{PARTS[split]}_{name}.json"
        if path.is_file():
            continue
        reason = "it is part of FreiHAND's official layout"
        if split == "test":
            reason += "; the archive FreiHAND_pub_v2_eval.zip has it, for the same folder"
        if name == "verts" and path.with_name(f"{PARTS[split]}_mano.json").is_file():
            reason = (
                "vertices come from it. A *_mano.json is there, but its parameters become vertices "
                "only through the MANO model: use a release with vertex lists (FreiHAND v2)"
            )
        raise FileNotFoundError(f"{path}: no such annotation list; {reason}")


def read_annotations(folder: Path, split: str) -> Annotations:
    """Reads and checks the annotation lists of a split.

    Raises:
        FileNotFoundError: if a list is missing.
        ValueError: if a list is cut short, has another length than the photos call for, or a
            record of another shape.
    """
    n = count_annotations(folder, split)
    check_lists_are_there(folder, split)
    lists = {}
    for name, shape in _SHAPES.items():
        path = folder / f"{PARTS[split]}_{name}.json"
        try:
            lists[name] = read_records(path, shape)
        except ValueError as error:
            raise ValueError(f"{error}. {n} records were expected") from error
        if len(lists[name]) != n:
            counted = "masks" if split == "train" else "photos"
            raise ValueError(
                f"{path}: {len(lists[name])} records, expected {n}, as many as there are {counted} "
                f"in {PARTS[split]}: lists and photos must be of the same release; unpack or "
                "generate the folder again"
            )
    return Annotations(lists["K"], lists["xyz"], lists["verts"], lists["scale"])


def mask_box_px(mask_path: Path) -> Float[np.ndarray, "4"]:
    """The box (x, y, width, height) around a mask; specks under a tenth of the hand are ignored.

    Raises:
        ValueError: if the mask is unreadable or empty.
    """
    mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError(f"{mask_path}: not a readable image; get the file again")
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    parts = stats[1:]  # The first is the background.
    if not len(parts):
        raise ValueError(f"{mask_path}: the mask is empty; it must show where the hand is")
    parts = parts[10 * parts[:, cv2.CC_STAT_AREA] >= parts[:, cv2.CC_STAT_AREA].max()]
    start = parts[:, :2].min(axis=0)
    stop = (parts[:, :2] + parts[:, 2:4]).max(axis=0)
    return np.concatenate([start, stop - start]).astype(np.float32)


def centred_box_px(height: int, width: int) -> Float[np.ndarray, "4"]:
    """The fixed square of the evaluation photos, for which FreiHAND has no masks."""
    side = EVALUATION_BOX_PX
    return np.array([(width - side) / 2, (height - side) / 2, side, side], np.float32)


def fingerprint(folder: Path) -> str:
    """Tells two contents of a folder apart, wherever it lies and whenever it was copied.

    It covers the name and size of every file and the first and last megabyte of each list.

    Raises:
        FileNotFoundError: if the folder or a part of the layout is missing.
        ValueError: if the training photos are not 1 to 4 times the masks.
    """
    digest = hashlib.sha256()
    for split, part in PARTS.items():
        count_annotations(folder, split)
        check_lists_are_there(folder, split)
        for name in _SHAPES:
            path = folder / f"{part}_{name}.json"
            n_bytes = path.stat().st_size
            digest.update(f"{path.name} {n_bytes}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLE_BYTES))
                file.seek(max(0, n_bytes - _SAMPLE_BYTES))
                digest.update(file.read())
        for kind in ("rgb", "mask") if split == "train" else ("rgb",):
            n = _count_numbered(folder / part / kind)
            sizes = [(folder / part / kind / f"{i:08d}.jpg").stat().st_size for i in range(n)]
            digest.update(f"{part}/{kind} ".encode() + np.asarray(sizes, np.int64).tobytes())
    return digest.hexdigest()
