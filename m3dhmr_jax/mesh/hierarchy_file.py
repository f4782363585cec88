"""Tables from a file, for weights that fit no others: those of a peer.

An .npz of plain arrays, levels from 0 (the finest) to the last that is refined to:

    spirals_0, spirals_1, ...        (V, S) integers: row i starts with vertex i
    up_indices_0, up_indices_1, ...  (V, 3) integers: vertices of the next coarser level
    up_weights_0, up_weights_1, ...  (V, 3) floats: their weights; rows need not sum to 1
    coarsest                         one integer: vertices of the coarsest level

Written, from lists of arrays, by

    named = {"spirals": spirals, "up_indices": up_indices, "up_weights": up_weights}
    flat = {f"{name}_{i}": x for name, xs in named.items() for i, x in enumerate(xs)}
    np.savez("hierarchy.npz", coarsest=49, **flat)

Where up-sampling is a sparse matrix with three entries in each row, `csr = matrix.tocsr()` has them
as `csr.indices.reshape(-1, 3)` and `csr.data.reshape(-1, 3)`.
"""

import re
import zipfile
from pathlib import Path

import numpy as np

from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, MeshLevel

KINDS = {"spirals": "integers", "up_indices": "integers", "up_weights": "floats"}


def load_hierarchy(path: str | Path) -> MeshHierarchy:
    """The hierarchy of a file, without spirals inside regions: those belong to the hand.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .npz of plain arrays, lacks one or has another, or if one has the
            wrong type or shape or names vertices that are not there. The message says which.
    """
    arrays = _read(Path(path))
    numbers = {int(key.rsplit("_", 1)[1]) for key in arrays if key != "coarsest"}
    count = max(numbers, default=0) + 1
    expected = {f"{name}_{number}" for name in KINDS for number in range(count)} | {"coarsest"}
    missing = sorted(expected - arrays.keys())
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}, which {count} levels must have")
    for key, array in arrays.items():
        _check_kind(path, key, array)
    levels = tuple(
        MeshLevel(
            spirals=arrays[f"spirals_{number}"].astype(np.int32),
            up_indices=arrays[f"up_indices_{number}"].astype(np.int32),
            up_weights=arrays[f"up_weights_{number}"].astype(np.float32),
        )
        for number in range(count)
    )
    try:
        return MeshHierarchy(levels, int(arrays["coarsest"]), None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: is no .npz of plain arrays ({error}); see m3dhmr_jax/mesh/hierarchy_file.py"
        ) from error
    unknown = [k for k in arrays if not re.fullmatch(rf"coarsest|({'|'.join(KINDS)})_\d+", k)]
    if unknown:
        raise ValueError(
            f"{path}: has {', '.join(unknown)}, which hierarchy do not have; "
            "the names are those in m3dhmr_jax/mesh/hierarchy_file.py"
        )
    return arrays


def _check_kind(path: str | Path, key: str, array: np.ndarray) -> None:
    name = key.rsplit("_", 1)[0]
    wanted, axes = KINDS.get(name, "integers"), 2 if name in KINDS else 0
    right = np.issubdtype(array.dtype, np.integer if wanted == "integers" else np.floating)
    if not right or array.ndim != axes or 0 in array.shape:
        raise ValueError(
            f"{path}: {key} is {array.dtype} of shape {array.shape}, expected {wanted} "
            + (f"with {axes} axes" if axes else "without axes, one number")
        )
