"""FreiHAND's official files: ground truth, challenge entries and scores.

    FOLDER/evaluation_xyz.json     true joints of each sample
    FOLDER/evaluation_verts.json   true vertices of each sample
    pred.json                      a challenge entry: [joints of all samples, vertices of all]
    pred.zip                       the same, as the challenge takes it
    scores.txt                     the official script's output, mean errors in centimetres

All coordinates are metres in camera space, samples in the order of the evaluation images.
Axes: b samples, n joints, v vertices.
"""

import json
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orjson
from jaxtyping import Float

from m3dhmr_jax.data.json_stream import read_lists, read_records
from m3dhmr_jax.data.units import check_metres, find_unit_problem
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.metrics.freihand import batch_metrics, scores
from m3dhmr_jax.runtime.files import check_new, expand_home, hint_if_deeper, write_atomic
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

_SHAPES = {"xyz": (N_JOINTS, 3), "verts": (N_VERTICES, 3)}
_MAX_NUMBER_BYTES = 32  # Of a number as text, with what separates it from the next.
_TEXT_KEYS = (
    *("xyz_mean3d", "xyz_auc3d", "xyz_al_mean3d", "xyz_al_auc3d"),
    *("mesh_mean3d", "mesh_auc3d", "mesh_al_mean3d", "mesh_al_auc3d"),
    *("f_score_5", "f_al_score_5", "f_score_15", "f_al_score_15"),
)


class Hands(NamedTuple):
    """Joints and meshes in camera space."""

    joints_m: Float[np.ndarray, "b n 3"]
    verts_m: Float[np.ndarray, "b v 3"]


@expand_home
def read_truth(folder: Path) -> Hands:
    """The annotations of the evaluation set, in float64 as in the official script.

    Raises:
        UserError: if a file is missing or corrupted, their lengths differ, or hands are not of a
            hand's size and distance in metres.
    """
    paths = {name: folder / f"evaluation_{name}.json" for name in _SHAPES}
    for path in paths.values():
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; the folder of the ground truth must hold "
                f"{' and '.join(p.name for p in paths.values())}, as in FreiHAND_pub_v2_eval.zip"
                f"{hint_if_deeper(folder, path.name)}"
            )
    truth = Hands(*(read_records(paths[name], _SHAPES[name], np.float64) for name in _SHAPES))
    if len(truth.joints_m) != len(truth.verts_m):
        raise UserError(
            f"{folder}: evaluation_xyz.json has {len(truth.joints_m)} samples and "
            f"evaluation_verts.json {len(truth.verts_m)}; they must be of the same release"
        )
    for name, points_m in _named_points(truth):
        check_metres(f"{folder}, {name}", points_m)
    return truth


def _named_points(hands: Hands) -> list[tuple[str, np.ndarray]]:
    """Joints and vertices; joints without meshes have zeros for vertices, which are left out."""
    return [(name, x) for name, x in zip(_SHAPES, hands, strict=True) if x.any()]


@expand_home
def read_predictions(path: Path, n: int) -> Hands:
    """A challenge entry, or the zip of one, for `n` samples, in float64 as in the official script.

    Every sample needs 21 joints and 778 vertices. The official script accepts other meshes and
    then writes -1 for most mesh scores; here they are rejected, as are joints alone: give zeros
    for vertices then, as the challenge asks for, and ignore the mesh scores.

    Raises:
        UserError: if it is missing or truncated, is not these two lists of `n` samples, or a
            sample has another shape or is not finite, or the hands seem to be in another unit or
            another frame. If they are implausible for no known reason, as those of a network that
            has hardly learned, that is only printed.
    """
    max_bytes = _MAX_NUMBER_BYTES * (n + 1) * 3 * (N_JOINTS + N_VERTICES)
    lists = read_lists(path, _SHAPES, np.float64, record="sample", max_zipped_bytes=max_bytes)
    hands = Hands(*lists)
    for name, values in zip(_SHAPES, hands, strict=True):
        if len(values) != n:
            hint = ""
            if name == "verts" and not len(values):
                hint = f"; for joints without meshes give zeros, {N_VERTICES} vertices per sample"
            raise UserError(
                f"{path}: the list of {name} has {len(values)} samples, but the ground truth has "
                f"{n}: there must be one for each image of the evaluation set, in its order{hint}"
            )
    for name, points_m in _named_points(hands):
        problem = find_unit_problem(points_m)
        if problem is not None and problem.cause:
            raise UserError(f"{path}, {name}: {problem.text}: {problem.cause}")
        if problem is not None:
            print(f"{path}, {name}: {problem.text}", file=sys.stderr)
    return hands


def score(pred: Hands, truth: Hands) -> dict[str, float]:
    """All scores of the official script under its keys, in metres, and those that papers report.

    In float64 as there: exactly its numbers, also for vertices at a threshold.
    """
    with jax.enable_x64(True):
        return scores(batch_metrics(*pred, *truth))


def scores_text(result: dict[str, float]) -> str:
    """The official script's `scores.txt`: mean errors in centimetres, other scores unchanged."""
    units = {key: 100 if key.endswith("mean3d") else 1 for key in _TEXT_KEYS}
    return "".join(f"{key}: {unit * result[key]:f}\n" for key, unit in units.items())


@expand_home
def write_scores(path: Path, result: dict[str, float]) -> None:
    """Writes `result`, in metres, to a .json file and `scores_text` to a .txt file of that name.

    Raises:
        UserError: if `path` does not end in .json, or one of the two exists; nothing is written.
    """
    text_path = path.with_suffix(".txt")
    if path.suffix != ".json":
        raise UserError(f"--out {path} must end in .json")
    for each in (path, text_path):
        check_new(each)
    with write_atomic(path) as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n")
    with write_atomic(text_path) as partial:
        partial.write_text(scores_text(result))


def write_predictions(path: Path, hands: Hands) -> Path:
    """Writes a challenge entry and the zip to submit, whose path is returned.

    Numbers have the digits that identify a float32.

    Raises:
        UserError: if a coordinate is not finite: the challenge rejects such an entry.
    """
    for name, values in zip(_SHAPES, hands, strict=True):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
        if len(bad):
            raise UserError(
                f"{path} is not written: {len(bad)} of {len(values)} predictions hold NaN or "
                f"infinity, first sample {bad[0]} of {name}; evaluate an earlier checkpoint"
            )
    lists = [np.ascontiguousarray(values, np.float32) for values in hands]
    content = orjson.dumps(lists, option=orjson.OPT_SERIALIZE_NUMPY)
    zip_path = path.with_suffix(".zip")
    with write_atomic(path) as partial:
        partial.write_bytes(content)
    with (
        write_atomic(zip_path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(path.name, content)
    return zip_path
