"""Scores as many predictions as FreiHAND's evaluation set has, from files, as a user does.

    python -m benchmarks.scoring

Writes annotations and a challenge entry of full size, every number with all digits of float64 (the
longest that such files can be), scores them with `m3dhmr score` in a process of its own, and prints
its wall time and its peak memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from benchmarks.measure import record, table
from m3dhmr_jax.hand import load_builtin

N_SAMPLES, NOISE_M = 3960, 0.004


class Samples(NamedTuple):
    """True and predicted hands in camera space; b samples, n joints, v vertices."""

    joints_m: Float[np.ndarray, "b n 3"]
    verts_m: Float[np.ndarray, "b v 3"]
    pred_joints_m: Float[np.ndarray, "b n 3"]
    pred_verts_m: Float[np.ndarray, "b v 3"]


def make_samples(n: int) -> Samples:
    """The built-in hand in random orientations, and the same with noise."""
    hand, rng = load_builtin(), np.random.default_rng(0)
    rotations = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    positions = rng.uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 1.0], (n, 3))[:, None]
    verts_m = hand.verts_m @ rotations + positions
    pred_verts_m = verts_m + NOISE_M * rng.normal(size=verts_m.shape)
    joints_m, pred_joints_m = (hand.joint_regressor @ x for x in (verts_m, pred_verts_m))
    return Samples(joints_m, verts_m, pred_joints_m, pred_verts_m)


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


def write_files(folder: Path, n: int) -> int:
    """Annotations and a challenge entry of `n` samples; returns their size in bytes."""
    samples = make_samples(n)
    write_list(folder / "evaluation_xyz.json", [samples.joints_m], is_nested=False)
    write_list(folder / "evaluation_verts.json", [samples.verts_m], is_nested=False)
    predicted = [samples.pred_joints_m, samples.pred_verts_m]
    write_list(folder / "pred.json", predicted, is_nested=True)
    return sum(path.stat().st_size for path in folder.iterdir())


def main(n: int = N_SAMPLES) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        megabytes = write_files(folder, n) / 1e6
        command = [sys.executable, "-m", "m3dhmr_jax.cli", "score", "--pred", folder / "pred.json"]
        command += ["--gt", folder, "--out", folder / "scores.json"]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(table(["samples", "MB of text", "s", "peak MB"], [[n, megabytes, seconds, peak_mb]]))
    record("scoring", {}, samples=n, seconds=round(seconds, 2), peak_mb=round(peak_mb))


if __name__ == "__main__":
    main()
