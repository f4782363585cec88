"""FreiHAND's official folder layout: which files there are, and what the annotations say.

    training/rgb/%08d.jpg    1 to 4 times n images: image i shows the hand of annotation i mod n,
                             each time before another background
    training/mask/%08d.jpg   n masks, for the first n images
    training_{K,xyz,verts,scale}.json                                      lists of n
    evaluation/rgb/%08d.jpg, evaluation_{K,xyz,verts,scale}.json           one image for each

A `*_mano.json` serves where there is no `*_verts.json`; see `mano_lists`.
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
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

MAX_VERSIONS = 4  # Background versions of each training photo in the official release.
EVALUATION_BOX_PX = 130  # The peers' fixed crop on the evaluation photos, 100 px times 1.3.
PARTS = {"train": "training", "test": "evaluation"}
_SHAPES = {"K": (3, 3), "xyz": (N_JOINTS, 3), "verts": (N_VERTICES, 3), "scale": ()}
LABELS_AGREE_M = 0.01  # Landmarks regressed from the right surface are a few millimetres off.
_SAMPLE_BYTES = 1 << 20
_FILE_NAME = re.compile(r"\d{8}\.jpg")


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """The labels of one split, one row for each annotation."""

    intrinsics: Float[np.ndarray, "a 3 3"]
    joints_m: Float[np.ndarray, "a n 3"]
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
            "or write a synthetic set with python -m m3dhmr_jax.synthetic)"
        )
    names = {name for name in os.listdir(folder) if _FILE_NAME.fullmatch(name)}
    absent = next((i for i in range(len(names)) if f"{i:08d}.jpg" not in names), None)
    if not names or absent is not None:
        raise FileNotFoundError(
            f"{folder}: {absent or 0:08d}.jpg is missing ({len(names)} numbered photos are there); "
            "the folder is incomplete: unpack or generate it again"
        )
    return len(names)


def list_names(folder: Path, split: str) -> tuple[str, ...]:
    """The annotation lists that a split is read from: verts, or mano where there are no verts.

    Raises:
        FileNotFoundError: if one is missing, naming it and where to get it.
    """
    has_parameters = _list_path(folder, split, "mano").is_file()
    has_vertices = _list_path(folder, split, "verts").is_file()
    names = ("K", "xyz", "mano" if has_parameters and not has_vertices else "verts", "scale")
    for name in names:
        path = _list_path(folder, split, name)
        if not path.is_file():
            reason = "it is part of FreiHAND's official layout"
            if split == "test":
                reason += "; the archive FreiHAND_pub_v2_eval.zip has it, for the same folder"
            raise FileNotFoundError(f"{path}: no such annotation list; {reason}")
    return names


def _list_path(folder: Path, split: str, name: str) -> Path:
    return folder / f"{PARTS[split]}_{name}.json"


def read_annotations(folder: Path, split: str, hand: HandModel | None = None) -> Annotations:
    """Reads and checks the annotation lists of a split; `hand` is what mano lists are posed with.

    Raises:
        FileNotFoundError: if a list is missing.
        ValueError: if a list is cut short, has another length than the photos call for, or a
            record of another shape; if there are only parameters and no hand, or another hand than
            they were made for.
    """
    n = count_annotations(folder, split)
    lists = {name: _read_list(folder, split, name, n) for name in list_names(folder, split)}
    if "mano" in lists:
        path = _list_path(folder, split, "mano")
        lists["verts"] = _pose(path, hand, lists["mano"], lists["K"], lists["xyz"])
    return Annotations(lists["K"], lists["xyz"], lists["verts"], lists["scale"])


def _read_list(folder: Path, split: str, name: str, n: int) -> np.ndarray:
    path = _list_path(folder, split, name)
    try:
        records = read_parameters(path) if name == "mano" else read_records(path, _SHAPES[name])
    except ValueError as error:
        raise ValueError(f"{error}. {n} records were expected") from error
    if len(records) != n:
        counted = "masks" if split == "train" else "photos"
        raise ValueError(
            f"{path}: {len(records)} records, expected {n}, as many as there are {counted} "
            f"in {PARTS[split]}: lists and photos must be of the same release; unpack or "
            "generate the folder again"
        )
    return records


def _pose(
    path: Path,
    hand: HandModel | None,
    parameters: Float[np.ndarray, "a 61"],
    intrinsics: Float[np.ndarray, "a 3 3"],
    joints_m: Float[np.ndarray, "a n 3"],
) -> Float[np.ndarray, "a v 3"]:
    needs = "MANO: name your MANO_RIGHT.pkl with --config.hand (or --hand of tfds_freihand.prepare)"
    if hand is None:
        raise ValueError(
            f"{path}: there is no list of vertices beside it, and its parameters become vertices "
            f"only through {needs}"
        )
    try:
        verts_m = posed_vertices_m(hand, parameters, intrinsics)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    off_m = joint_distance_m(hand, verts_m, joints_m)
    if off_m > LABELS_AGREE_M:
        raise ValueError(
            f"{path}: posed with the hand that is set, its parameters give landmarks that are "
            f"{1000 * off_m:.0f} mm from those of {path.name.replace('mano', 'xyz')}: they are "
            f"another hand's. FreiHAND's need {needs}"
        )
    return verts_m


def joint_distance_m(
    hand: HandModel, verts_m: Float[np.ndarray, "a v 3"], joints_m: Float[np.ndarray, "a n 3"]
) -> float:
    """How far the landmarks that `hand` regresses from meshes are from `joints_m`, for the median."""
    apart_m = np.linalg.norm(hand.joint_regressor @ verts_m - joints_m, axis=2).mean(axis=1)
    return float(np.median(apart_m))


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
        for name in list_names(folder, split):
            path = _list_path(folder, split, name)
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
