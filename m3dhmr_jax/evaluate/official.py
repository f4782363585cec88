"""FreiHAND's official files: what a challenge entry looks like, and what scores it.

    FOLDER/evaluation_xyz.json     landmarks of each sample, the truth
    FOLDER/evaluation_verts.json   vertices of each sample
    pred.json                      [xyz of all samples, vertices of all samples], as one list
    scores.txt                     what the official script writes, mean errors in centimetres

All coordinates are metres in camera space, samples in the order of the evaluation photos.
Axes: b samples, n landmarks, v vertices.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orjson
from jaxtyping import Float

from m3dhmr_jax.data.json_stream import read_lists, read_records
from m3dhmr_jax.metrics.freihand import batch_metrics, scores
from m3dhmr_jax.types import N_JOINTS, N_VERTICES

_SHAPES = {"xyz": (N_JOINTS, 3), "verts": (N_VERTICES, 3)}
_TEXT_KEYS = (
    *("xyz_mean3d", "xyz_auc3d", "xyz_al_mean3d", "xyz_al_auc3d"),
    *("mesh_mean3d", "mesh_auc3d", "mesh_al_mean3d", "mesh_al_auc3d"),
    *("f_score_5", "f_al_score_5", "f_score_15", "f_al_score_15"),
)


class Hands(NamedTuple):
    """Landmarks and meshes in camera space."""

    joints_m: Float[np.ndarray, "b n 3"]
    verts_m: Float[np.ndarray, "b v 3"]


def read_truth(folder: Path) -> Hands:
    """The annotations of the evaluation set, in float64 as the official script has them.

    Raises:
        FileNotFoundError: if a list is missing.
        ValueError: if one is damaged, or they have different lengths.
    """
    paths = {name: folder / f"evaluation_{name}.json" for name in _SHAPES}
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; the folder of the truth must hold "
                f"{' and '.join(p.name for p in paths.values())}, as FreiHAND_pub_v2_eval.zip does"
            )
    truth = Hands(*(read_records(paths[name], _SHAPES[name], np.float64) for name in _SHAPES))
    if len(truth.joints_m) != len(truth.verts_m):
        raise ValueError(
            f"{folder}: evaluation_xyz.json has {len(truth.joints_m)} samples and "
            f"evaluation_verts.json {len(truth.verts_m)}; they must be of the same release"
        )
    return truth


def read_predictions(path: Path, n: int) -> Hands:
    """A challenge entry for `n` samples, in float64 as the official script has it.

    Every sample needs 21 landmarks and as many vertices as the truth. The official script also
    takes other meshes, and then writes -1 for most mesh scores; here they are refused, as are
    landmarks alone: give zeros for vertices then, as the challenge asks for, and leave the
    scores of the mesh aside.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is cut short, not these two lists, not of `n` samples, or if a sample
            has another shape or is not finite, which is named.
    """
    hands = Hands(*read_lists(path, _SHAPES, np.float64, record="sample"))
    for name, values in zip(_SHAPES, hands, strict=True):
        if len(values) != n:
            hint = ""
            if name == "verts" and not len(values):
                hint = f"; for landmarks without meshes give zeros, {N_VERTICES} vertices a sample"
            raise ValueError(
                f"{path}: the list of {name} has {len(values)} samples, but the truth has {n}: "
                f"there must be one for each photo of the evaluation set, in its order{hint}"
            )
    return hands


def score(pred: Hands, truth: Hands) -> dict[str, float]:
    """Every score of the official script under its keys, metres, and those that papers quote.

    In float64, as there: the official numbers to the last vertex that lies on a threshold.
    """
    with jax.enable_x64(True):
        return scores(batch_metrics(*pred, *truth))


def scores_text(result: dict[str, float]) -> str:
    """The official script's `scores.txt`: mean errors in centimetres, the rest as it is."""
    units = {key: 100 if key.endswith("mean3d") else 1 for key in _TEXT_KEYS}
    return "".join(f"{key}: {unit * result[key]:f}\n" for key, unit in units.items())


def write_predictions(path: Path, hands: Hands) -> Path:
    """Writes a challenge entry, and beside it the zip to hand in, whose path is returned.

    Numbers have the digits that tell one float32 from the next.

    Raises:
        ValueError: if a coordinate is not finite: such an entry would be refused.
    """
    for name, values in zip(_SHAPES, hands, strict=True):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))
        if len(bad):
            raise ValueError(
                f"{path} is not written: {len(bad)} of {len(values)} predictions hold NaN or "
                f"infinity, sample {bad[0]} of {name} first; the network has not learned"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, zipped = path.with_suffix(".partial"), path.with_suffix(".zip")
    lists = [np.ascontiguousarray(values, np.float32) for values in hands]
    partial.write_bytes(orjson.dumps(lists, option=orjson.OPT_SERIALIZE_NUMPY))
    partial.replace(path)
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    partial.replace(zipped)
    return zipped
