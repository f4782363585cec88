"""Scores as many predictions as FreiHAND's evaluation set has, from files, as a user does.

Run: python -m benchmarks.scoring
Writes a truth and a challenge entry of full size, every number with all the digits of float64 (the
longest files that such an entry can be), scores them with the command in a process of its own, and
prints its seconds, from start to end, and its peak memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from m3dhmr_jax.hand import load_builtin

N_SAMPLES, NOISE_M = 3960, 0.004


def write_list(path: Path, lists: list[np.ndarray], *, is_nested: bool) -> None:
    """One list of samples, or a list of such lists, a sample at a time."""
    with path.open("w") as file:
        file.write("[" * is_nested)
        for i, samples in enumerate(lists):
            file.write(", [" if i else "[")
            for j, sample in enumerate(samples):
                file.write((", " if j else "") + json.dumps(sample.tolist()))
            file.write("]")
        file.write("]" * is_nested)


def write_files(folder: Path) -> int:
    """The built-in hand before the camera, and the same with noise; their size in bytes."""
    hand, rng = load_builtin(), np.random.default_rng(0)
    turns = np.linalg.qr(rng.normal(size=(N_SAMPLES, 3, 3)))[0]
    places = rng.uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 1.0], (N_SAMPLES, 3))[:, None]
    verts = hand.vertices @ turns + places
    pred_verts = verts + NOISE_M * rng.normal(size=verts.shape)
    xyz, pred_xyz = (hand.joint_regressor @ x for x in (verts, pred_verts))
    write_list(folder / "evaluation_xyz.json", [xyz], is_nested=False)
    write_list(folder / "evaluation_verts.json", [verts], is_nested=False)
    write_list(folder / "pred.json", [pred_xyz, pred_verts], is_nested=True)
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_bytes = write_files(folder)
        print(f"{N_SAMPLES} samples, {n_bytes / 1e6:.0f} MB of text")
        command = [sys.executable, "-m", "m3dhmr_jax.evaluate", "--pred", folder / "pred.json"]
        command += ["--gt", folder, "--out", folder / "scores.json"]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"{seconds:.1f} s, {peak_mb:.0f} MB at most")


if __name__ == "__main__":
    main()
