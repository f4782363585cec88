"""Wavefront .obj files, which every 3D program opens. Axes: v vertices, f faces."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int


def write_obj(
    path: str | Path, verts_m: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> None:
    """Writes the mesh in metres, in the axes it is given in; faces are counted from 1, as in .obj.

    Raises:
        ValueError: if a vertex is not finite, which other programs would refuse without a word.
    """
    broken = np.flatnonzero(~np.isfinite(verts_m).all(1))
    if len(broken):
        raise ValueError(
            f"vertex {broken[0]} is {verts_m[broken[0]]} ({len(broken)} in all are not finite): "
            f"nothing was written to {path}"
        )
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in verts_m.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    Path(path).write_text("\n".join(lines) + "\n", encoding="ascii")
