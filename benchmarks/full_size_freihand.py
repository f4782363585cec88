"""Minutes and memory to prepare FreiHAND at its full size, on a stand-in of noise.

    python -m benchmarks.full_size_freihand
    python -m benchmarks.full_size_freihand --hand=MANO_RIGHT.pkl   # Meshes given as parameters.

Writes 130,240 training images with 32,560 masks and annotations, and 3,960 evaluation images, in
the official layout (hard links to a few files), then runs `m3dhmr prepare` on them in a process of
its own. This needs 5 GB in --tmp, which are freed afterwards. The peak is the resident memory of
that process, as reported by `/usr/bin/time -v`.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import simplejpeg
from absl import app, flags

from benchmarks.measure import record
from m3dhmr_jax.data.mano_annotations import posed_vertices_m
from m3dhmr_jax.hand import HandModel, load_mano

POSES, VERSIONS, EVALUATION = 32_560, 4, 3_960
DISTINCT = 64  # Images and annotations; some file systems allow 65,000 links to one file.
SIDE_PX = 224
TARGET_MINUTES, TARGET_GB = 15, 4
SHRINK = flags.DEFINE_integer("shrink", 1, "Divides all numbers, for a quick run.")
HAND = flags.DEFINE_string("hand", None, "MANO_RIGHT.pkl; then annotations are MANO parameters.")
TMP = flags.DEFINE_string("tmp", None, "A folder with 5 GB of free space; default: the system's.")


def images(rng: np.random.Generator) -> list[bytes]:
    """JPEG files of coloured noise, about 9 KB each."""
    blocks = rng.integers(0, 256, (DISTINCT, 28, 28, 3), np.uint8)
    return [
        simplejpeg.encode_jpeg(np.kron(block, np.ones((8, 8, 1), np.uint8))) for block in blocks
    ]


def masks(rng: np.random.Generator) -> list[bytes]:
    """JPEG files of white rectangles on black."""
    files = []
    for x, y in rng.integers(20, 100, (DISTINCT, 2)):
        mask = np.zeros((SIDE_PX, SIDE_PX, 1), np.uint8)
        mask[y : y + 100, x : x + 90] = 255
        files.append(simplejpeg.encode_jpeg(mask, colorspace="GRAY"))
    return files


def write_files(folder: Path, files: list[bytes], count: int) -> None:
    """`count` numbered files with the given contents in turn."""
    folder.mkdir(parents=True)
    for index in range(count):
        path = folder / f"{index:08d}.jpg"
        if index < len(files):
            path.write_bytes(files[index])
        else:
            os.link(folder / f"{index % len(files):08d}.jpg", path)


def write_annotations(path: Path, records: Iterable[str], count: int) -> None:
    """A JSON list of `count` records, the given ones in turn."""
    with path.open("w") as file:
        for index, record in enumerate(itertools.islice(itertools.cycle(records), count)):
            file.write(("," if index else "[") + record)
        file.write("]")


def annotations(rng: np.random.Generator, hand: HandModel | None) -> dict[str, list[str]]:
    """Records as JSON; numbers have as many digits as FreiHAND's."""
    intrinsics = np.tile(np.array([[480.0, 0, 112], [0, 480, 112], [0, 0, 1]]), (DISTINCT, 1, 1))
    intrinsics += np.diag([1, 1, 0]) * rng.normal(size=(DISTINCT, 1, 1))
    values = {
        "K": intrinsics,
        "xyz": rng.normal([0, 0, 0.7], 0.05, (DISTINCT, 21, 3)),
        "verts": rng.normal([0, 0, 0.7], 0.05, (DISTINCT, 778, 3)),
        "scale": rng.normal(0.03, 0.001, DISTINCT),
    }
    if hand is not None:
        values |= posed(rng, hand, intrinsics)
        del values["verts"]
    return {name: [json.dumps(row) for row in rows.tolist()] for name, rows in values.items()}


def posed(
    rng: np.random.Generator, hand: HandModel, intrinsics: np.ndarray
) -> dict[str, np.ndarray]:
    """MANO parameters and the joints of the meshes that they pose."""
    pose_and_shape = rng.normal(0, 0.5, (DISTINCT, 58))
    root = np.tile([112.0, 112.0, 700.0], (DISTINCT, 1))
    parameters = np.concatenate([pose_and_shape, root], axis=1)
    verts_m = posed_vertices_m(hand, parameters, intrinsics)
    return {"mano": parameters[:, None], "xyz": hand.joint_regressor @ verts_m}


def write_stand_in(folder: Path) -> None:
    """The whole folder; 1.7 GB of it are the vertex annotations."""
    rng = np.random.default_rng(0)
    hand = load_mano(HAND.value) if HAND.value else None
    poses, evaluation = POSES // SHRINK.value, EVALUATION // SHRINK.value
    write_files(folder / "training" / "rgb", images(rng), poses * VERSIONS)
    write_files(folder / "training" / "mask", masks(rng), poses)
    write_files(folder / "evaluation" / "rgb", images(rng), evaluation)
    for part, count in (("training", poses), ("evaluation", evaluation)):
        for name, records in annotations(rng, hand).items():
            write_annotations(folder / f"{part}_{name}.json", records, count)


def prepare(folder: Path, data_dir: Path) -> tuple[float, float, float]:
    """Minutes, CPU-minutes and peak gigabytes of `m3dhmr prepare`."""
    command = [sys.executable, "-m", "m3dhmr_jax.cli", "prepare", str(folder), f"--out={data_dir}"]
    command += [f"--hand={HAND.value}"] if HAND.value else []
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: run it by hand to see why")
    minutes = (time.perf_counter() - start) / 60
    return minutes, (usage.ru_utime + usage.ru_stime) / 60, usage.ru_maxrss / 1e6


def main(_) -> None:
    with tempfile.TemporaryDirectory(dir=TMP.value) as tmp:
        folder = Path(tmp) / "FreiHAND"
        start = time.perf_counter()
        write_stand_in(folder)
        print(f"stand-in written in {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
        minutes, cpu_minutes, gigabytes = prepare(folder, Path(tmp) / "tfds")
        written = sum(p.stat().st_size for p in (Path(tmp) / "tfds").rglob("*") if p.is_file())
    print(f"prepared in {minutes:.1f} minutes (target: {TARGET_MINUTES}), {cpu_minutes:.1f} of CPU")
    print(f"peak memory {gigabytes:.2f} GB (target: {TARGET_GB}); {written / 1e9:.1f} GB written")
    facts = {"minutes": minutes, "cpu_minutes": cpu_minutes, "peak_gb": gigabytes}
    facts = {name: round(value, 2) for name, value in facts.items()}
    record("full_size_freihand", {}, shrink=SHRINK.value, from_mano=bool(HAND.value), **facts)


if __name__ == "__main__":
    app.run(main)
