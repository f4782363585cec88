"""Do rendered images look like photos? Sharpness, contrast, skin and fingers of both.

    [REAL_DIR=... REFERENCE_DIR=...] python -m benchmarks.synthetic_looks [--count N] [--sheet FILE]

Renders images of each recipe in turn in this process and, where both folders are given, measures
real photos in the same way: FreiHAND's and the development set. All figures but those of the
fingers are of crops of SIDE px, SCALE times as large as the box around the landmarks. Real photos
have no true 3D joints, so their fingers are not measured. `--sheet` writes one picture of crops
per column, for the eye.
"""

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from benchmarks.measure import record, table
from benchmarks.real_images import read_freihand, read_photos
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic import RECIPES, Recipe
from m3dhmr_jax.synthetic.camera import project
from m3dhmr_jax.synthetic.example import APPEARANCE, GEOMETRY, example_rng
from m3dhmr_jax.synthetic.imaging import encode_image
from m3dhmr_jax.synthetic.render import rasterise_scene, render_image
from m3dhmr_jax.synthetic.scene import RenderAssets, prepare_assets, sample_scene

SEED = 1_000_003
SIDE, SCALE = 64, 1.3
SHEET_COLUMNS, SHEET_ROWS = 10, 8
FINGER_BASES = (1, 5, 9, 13, 17)  # Thumb to little.
# Distance between a finger's base and tip over the length of its bones.
STRAIGHT, BENT = 0.95, 0.75


class Looks(NamedTuple):
    """A hand's crop and labels."""

    crop: UInt8[np.ndarray, "s s 3"]
    landmarks_01: Float[np.ndarray, "21 2"]
    joints_m: Float[np.ndarray, "21 3"] | None


def looks_of(
    image: UInt8[np.ndarray, "h w 3"],
    landmarks_px: Float[np.ndarray, "21 2"],
    joints_m: Float[np.ndarray, "21 3"] | None = None,
) -> Looks:
    low, high = landmarks_px.min(0), landmarks_px.max(0)
    side_px = SCALE * (high - low).max()
    corner = (low + high - side_px) / 2
    samples = max(1, round(side_px / SIDE))  # Per pixel side: averages, as area sampling does.
    zoom = samples * SIDE / side_px
    moved = np.array([[zoom, 0, 0], [0, zoom, 0]])
    moved[:, 2] = -zoom * corner - 0.5
    fine = cv2.warpAffine(image, moved, (samples * SIDE,) * 2, borderMode=cv2.BORDER_REFLECT)
    crop = cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return Looks(np.asarray(crop, np.uint8), (landmarks_px - corner) / side_px, joints_m)


def render_looks(assets: RenderAssets, recipe: Recipe, count: int) -> Iterator[Looks]:
    for index in range(count):
        scene = sample_scene(example_rng(SEED, "training", index, GEOMETRY), assets, recipe)
        raster = rasterise_scene(scene, assets.surface)
        rng = example_rng(SEED, "training", index, APPEARANCE)
        jpeg = encode_image(*render_image(rng, scene, assets, raster, recipe))
        decoded = np.asarray(
            cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8
        )
        image = np.ascontiguousarray(decoded[..., ::-1])
        yield looks_of(image, project(scene.joints_m, scene.intrinsics), scene.joints_m)


def real_looks() -> dict[str, list[Looks]]:
    if not {"REAL_DIR", "REFERENCE_DIR"} <= set(os.environ):
        return {}
    real, reference = (Path(os.environ[name]) for name in ("REAL_DIR", "REFERENCE_DIR"))
    sources = {
        "FreiHAND": read_freihand(reference / "freihand_photos", real / "freihand_uv.json"),
        "photos": read_photos(real),
    }
    return {
        name: [looks_of(s.image, label.landmarks_px) for s in samples for label in s.labels]
        for name, samples in sources.items()
    }


def skin_rgb(looks: Looks) -> Float[np.ndarray, "3"]:
    """The median colour along the bones, in 0..1."""
    fingers = looks.landmarks_01[1:].reshape(5, 4, 2)
    chains = np.concatenate([np.broadcast_to(looks.landmarks_01[0], (5, 1, 2)), fingers], axis=1)
    along = np.linspace(0, 1, 5)[:, None, None, None]
    points = (chains[:, :-1] + along * np.diff(chains, axis=1)).reshape(-1, 2)
    columns, rows = np.clip(points * SIDE, 0, SIDE - 1).astype(int).T
    return np.median(looks.crop[rows, columns], axis=0) / 255


def straightness(joints_m: Float[np.ndarray, "21 3"]) -> Float[np.ndarray, "5"]:
    """Distance from base to tip over the bones' length, thumb to little finger; 1 is straight."""
    fingers = joints_m[1:].reshape(5, 4, 3)
    bones = np.linalg.norm(np.diff(fingers, axis=1), axis=-1).sum(1)
    return np.linalg.norm(fingers[:, 3] - fingers[:, 0], axis=-1) / bones


def measure(every: list[Looks]) -> dict[str, float]:
    """The figures of one column."""
    greys = [
        cv2.cvtColor(looks.crop, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255 for looks in every
    ]
    slopes = [[cv2.Sobel(grey, cv2.CV_64F, *d) for d in ((1, 0), (0, 1))] for grey in greys]
    skin = np.array([skin_rgb(looks) for looks in every])
    luminance = skin @ [0.299, 0.587, 0.114]
    figures = {
        "deviation of the Laplacian": np.mean([cv2.Laplacian(g, cv2.CV_64F).std() for g in greys]),
        "mean gradient": np.mean([np.hypot(*slope).mean() for slope in slopes]),
        "deviation of luminance": np.mean([grey.std() for grey in greys]),
        "skin R/G": np.median(skin[:, 0] / skin[:, 1]),
        "skin R/B": np.median(skin[:, 0] / skin[:, 2]),
        "skin from hand to hand": luminance.std(),
        "clipped": np.mean([np.mean(looks.crop.max(2) > 250) for looks in every]),
    }
    bends = [straightness(looks.joints_m) for looks in every if looks.joints_m is not None]
    if bends:
        thumb, long = np.array(bends)[:, 0], np.array(bends)[:, 1:]
        straight, bent = long > STRAIGHT, long < BENT
        figures |= {
            "long fingers straight": straight.mean(),
            "half bent": 1 - straight.mean() - bent.mean(),
            "bent": bent.mean(),
            "no finger straight": 1 - straight.any(1).mean(),
            "thumb straight": (thumb > STRAIGHT).mean(),
        }
    return {name: float(value) for name, value in figures.items()}


def write_sheet(path: Path, every: list[Looks]) -> None:
    crops = [
        looks.crop for looks in itertools.islice(itertools.cycle(every), SHEET_COLUMNS * SHEET_ROWS)
    ]
    rows = [
        np.concatenate(crops[i : i + SHEET_COLUMNS], 1) for i in range(0, len(crops), SHEET_COLUMNS)
    ]
    sheet = cv2.resize(np.concatenate(rows), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), sheet[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Do rendered images look like photos?")
    parser.add_argument("--count", type=int, default=400, help="images per recipe (default: 400)")
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), default=sorted(RECIPES))
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="FILE_COLUMN.png is written")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    assets = prepare_assets(load_builtin())
    columns, rates = real_looks(), {}
    # In turn, so that all recipes see the same load of the machine; the first compile.
    renderers = {
        name: render_looks(assets, RECIPES[name], options.count) for name in options.recipes
    }
    columns |= {name: [next(renderers[name])] for name in renderers}
    seconds = dict.fromkeys(renderers, 0.0)
    for _ in range(options.count - 1):
        for name, renderer in renderers.items():
            start = time.process_time()
            columns[name].append(next(renderer))
            seconds[name] += time.process_time() - start
    rates = {name: (options.count - 1) / spent for name, spent in seconds.items()}
    figures = {name: measure(every) for name, every in columns.items()}
    for name, rate in rates.items():
        figures[name]["images per core second"] = rate
    rows = list(dict.fromkeys(row for column in figures.values() for row in column))
    cells = [[row, *(figures[name].get(row) for name in figures)] for row in rows]
    print(table(["", *figures], cells))
    for name, column in figures.items():
        record("synthetic_looks", {}, column=name, images=len(columns[name]), **column)
    if options.sheet:
        for name, every in columns.items():
            write_sheet(options.sheet.with_name(f"{options.sheet.stem}_{name}.png"), every)


if __name__ == "__main__":
    main()
