"""Files of an intrinsic matrix K, as calibration programs write them.

- `.json`, `.yaml` and `.yml`, those of OpenCV and ROS among them: a matrix, or an object with one
  under a name in NAMES, or with fx, fy, cx and cy. Names are compared without capitals, spaces,
  hyphens and underscores.
- `.txt` and `.npy`: a matrix.
A matrix is 3 x 3 numbers, also flat by rows, or fx, fy, cx and cy.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from m3dhmr_jax.errors import UserError

NAMES = ("k", "cameramatrix", "intrinsics", "intrinsicmatrix", "camintr")
FOUR = ("fx", "fy", "cx", "cy")
OPENCV_HEADER = "%YAML:1.0"  # Not YAML: its directives have a space in place of the colon.


class _Loader(yaml.SafeLoader):
    """Reads OpenCV's matrices as objects."""


_Loader.add_constructor(
    "tag:yaml.org,2002:opencv-matrix",
    lambda loader, node: loader.construct_mapping(node, deep=True),  # pyright: ignore[reportArgumentType]
)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _read_yaml(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig").removeprefix(OPENCV_HEADER)
    return yaml.load(text, _Loader)


def _read_text(path: Path) -> Any:
    numbers = path.read_text(encoding="utf-8-sig").replace(",", " ").split()
    return [float(number) for number in numbers]


def _read_array(path: Path) -> Any:
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False).tolist()


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".txt": _read_text,
    ".npy": _read_array,
}
SUFFIXES = tuple(READERS)


def read_intrinsics(path: Path) -> np.ndarray:
    """The matrix in a file.

    Raises:
        UserError: if the file is missing, of another kind, or does not contain exactly one matrix.
    """
    if not path.is_file():
        raise UserError(f"--K {path}: no such file")
    try:
        return matrix_of(READERS[path.suffix.lower()](path))
    except (ValueError, TypeError, OverflowError, RecursionError, OSError, yaml.YAMLError) as error:
        raise UserError(
            f"--K {path}: {' '.join(str(error).split())}; it must contain a 3 x 3 matrix, fx, fy, "
            "cx and cy, or one of these under the name K, camera_matrix, intrinsics, "
            "intrinsic_matrix or cam_intr"
        ) from error


def matrix_of(content: Any) -> np.ndarray:
    """The matrix in the content of a file.

    Raises:
        ValueError: if there is none, or several.
        TypeError: if it does not consist of numbers.
    """
    if isinstance(content, dict):
        return matrix_of(_matrix_in(content))
    numbers = np.asarray(content, np.float64)
    if numbers.shape == (4,):
        fx, fy, cx, cy = numbers.tolist()
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if numbers.shape == (9,):
        return numbers.reshape(3, 3)
    if numbers.shape != (3, 3):
        raise ValueError(f"it has numbers of shape {numbers.shape}")
    return numbers


def _matrix_in(content: dict[Any, Any]) -> Any:
    named = {_plain(name): value for name, value in content.items()}
    if "data" in named:
        return named["data"]
    found = [name for name in NAMES if name in named]
    has_four = all(name in named for name in FOUR)
    if len(found) + has_four != 1:
        names = found + ["fx, fy, cx, cy"] * has_four or list(map(str, content))
        raise ValueError(f"it names {'; '.join(names[:9]) or 'nothing'}")
    return [named[name] for name in FOUR] if has_four else named[found[0]]


def _plain(name: Any) -> str:
    return "".join(str(name).lower().split()).replace("_", "").replace("-", "")
