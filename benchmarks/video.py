"""Predicts a video as a user does: end-to-end speed, and memory that must not grow.

    python -m benchmarks.video
    python -m benchmarks.video --checkpoint runs/quickstart

Writes videos of 5 s and 30 s, 640 x 480 px at 30 Hz, in which a rendered hand moves over a
background, predicts each with `m3dhmr predict` in a process of its own, and prints its frames per
second from reading to writing, the time to the first frame, and its peak memory. A checkpoint's
network gets the box of the first frame, so that it runs without the hand detector.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from benchmarks.measure import record, table
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic.recipe import QUICKSTART
from m3dhmr_jax.synthetic.render import rasterise_scene, render_image
from m3dhmr_jax.synthetic.scene import prepare_assets, sample_scene

WIDTH, HEIGHT, RATE_HZ = 640, 480, 30
SECONDS = (5, 30)
FEATHER_PX = 12
# Around the hand in frame 0.
FIRST_BOX = "image,x,y,width,height,handedness\n{name},245,165,150,150,right\n"


def rendering(seed: int) -> UInt8[np.ndarray, "h w 3"]:
    """One image of the quickstart recipe."""
    assets, rng = prepare_assets(load_builtin()), np.random.default_rng(seed)
    scene = sample_scene(rng, assets, QUICKSTART)
    return render_image(rng, scene, assets, rasterise_scene(scene, assets.surface))[0]


def frames(seconds: int, seed: int = 0) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The image circles, comes nearer, recedes and rotates, four times a minute."""
    image = rendering(seed)
    side = len(image)
    rim = np.minimum.outer(*[np.minimum(np.arange(side), np.arange(side)[::-1])] * 2)
    card = np.dstack([image, np.clip(255 * rim / FEATHER_PX, 0, 255)]).astype(np.float32)
    background = cv2.resize(cv2.GaussianBlur(image, (0, 0), 25), (WIDTH, HEIGHT))
    for i in range(seconds * RATE_HZ):
        phase = 2 * np.pi * i / (15 * RATE_HZ)
        middle = WIDTH / 2 + 90 * np.sin(phase), HEIGHT / 2 + 40 * np.sin(2 * phase)
        matrix = cv2.getRotationMatrix2D(
            (side / 2, side / 2), 10 * np.sin(phase), 1.25 + 0.25 * np.sin(3 * phase)
        )
        matrix[:, 2] += np.array(middle) - side / 2
        moved = cv2.warpAffine(card, matrix, (WIDTH, HEIGHT))
        alpha = moved[..., 3:] / 255
        yield np.clip(moved[..., :3] * alpha + background * (1 - alpha), 0, 255).astype(np.uint8)


def write_video(path: Path, seconds: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE_HZ, (WIDTH, HEIGHT))
    for frame in frames(seconds):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


class Run(NamedTuple):
    frames_per_s: float
    first_frame_s: float
    peak_mb: int


def measure(command: list[str]) -> Run:
    """The speed that the command prints, and its peak memory."""
    code = "import sys, resource, runpy; sys.argv = sys.argv[1:]\n"
    code += "try: runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    code += "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    result = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    ((rate, wait_s),) = re.findall(r"([\d.]+) frames/s .* after ([\d.]+) s", result.stdout)
    (peak_mb,) = re.findall(r"^peak (\d+)$", result.stdout, re.MULTILINE)
    return Run(float(rate), float(wait_s), int(peak_mb))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.video", description=__doc__)
    parser.add_argument(
        "--checkpoint", help="workdir of a run, or a weights file (default: detector and fit)"
    )
    parser.add_argument("--keep", type=Path, help="folder to keep videos and results in")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runs = {}
        for seconds in SECONDS:
            video = folder / f"hand_{seconds}s.mp4"
            write_video(video, seconds)
            command = ["m3dhmr_jax.cli", "predict", str(video), "--smooth"]
            command += ["--out", str(folder / f"{seconds}s"), "--replace"]
            if options.checkpoint:
                boxes = folder / "boxes.csv"
                boxes.write_text(FIRST_BOX.format(name=video.name))
                command += ["--checkpoint", options.checkpoint, "--boxes", str(boxes)]
            runs[seconds] = measure(command)
    heads = ["s of video", "frames/s", "s to the first frame", "peak MB"]
    print(table(heads, [[str(seconds), *run] for seconds, run in runs.items()]))
    method = "network" if options.checkpoint else "fit"
    videos = [{"seconds": s} | run._asdict() for s, run in runs.items()]
    record("video", {}, method=method, videos=videos)


if __name__ == "__main__":
    main(sys.argv[1:])
