"""Mesh hierarchies from files, for weights trained with another implementation's (MobRecon).

An .npz of plain arrays, one set per level, 0 being the finest:

    spirals_0, spirals_1, ...        (V, S) integers: row i starts with vertex i
    up_indices_0, up_indices_1, ...  (V, 3) integers: vertices of the next coarser level
    up_weights_0, up_weights_1, ...  (V, 3) floats: their weights; rows need not sum to 1
    coarsest                         one integer: number of vertices of the coarsest mesh

From lists of arrays, it is written by

    named = {"spirals": spirals, "up_indices": up_indices, "up_weights": up_weights}
    flat = {f"{name}_{i}": x for name, xs in named.items() for i, x in enumerate(xs)}
    np.savez("hierarchy.npz", coarsest=49, **flat)

If up-sampling is a sparse matrix with three entries per row, `csr = matrix.tocsr()` holds them as
`csr.indices.reshape(-1, 3)` and `csr.data.reshape(-1, 3)`.
"""

import re
import zipfile
from pathlib import Path

import numpy as np

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy, MeshLevel

DTYPES = {"spirals": "integers", "up_indices": "integers", "up_weights": "floats"}


def load_hierarchy(path: str | Path) -> MeshHierarchy:
    """The hierarchy in a file, without the regions' spirals, which belong to the hand.

    Raises:
        UserError: if the file does not exist or is not an .npz of plain arrays, if an array is
            missing, unknown or has the wrong dtype or shape, or if an index is out of range.
    """
    arrays = _read(Path(path))
    numbers = {int(key.rsplit("_", 1)[1]) for key in arrays if key != "coarsest"}
    count = max(numbers, default=0) + 1
    expected = {f"{name}_{number}" for name in DTYPES for number in range(count)} | {"coarsest"}
    missing = sorted(expected - arrays.keys())
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}; {count} levels need them")
    for key, array in arrays.items():
        _check_array(path, key, array)
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
        raise UserError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not an .npz of plain arrays ({error}); see m3dhmr_jax/mesh/hierarchy_file.py"
        ) from error
    unknown = [k for k in arrays if not re.fullmatch(rf"coarsest|({'|'.join(DTYPES)})_\d+", k)]
    if unknown:
        raise UserError(
            f"{path}: unknown arrays {', '.join(unknown)}; "
            "m3dhmr_jax/mesh/hierarchy_file.py lists the names"
        )
    return arrays


def _check_array(path: str | Path, key: str, array: np.ndarray) -> None:
    name = key.rsplit("_", 1)[0]
    expected, axes = DTYPES.get(name, "integers"), 2 if name in DTYPES else 0
    kind = np.integer if expected == "integers" else np.floating
    if not np.issubdtype(array.dtype, kind) or array.ndim != axes or 0 in array.shape:
        raise UserError(
            f"{path}: {key} is {array.dtype} of shape {array.shape}, expected {expected} "
            + (f"with {axes} axes" if axes else "as a single number")
        )
