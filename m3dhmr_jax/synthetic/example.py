"""One example of a synthetic dataset: its random streams, images and annotation.

Axes: n = 21 joints, v vertices.
"""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.workers import end_with_parent
from m3dhmr_jax.synthetic.imaging import encode_coverage, encode_image, encode_mask
from m3dhmr_jax.synthetic.recipe import Recipe
from m3dhmr_jax.synthetic.render import (
    rasterise_scene,
    render_image,
    visible_coverage,
    visible_hand_mask,
)
from m3dhmr_jax.synthetic.scene import RenderAssets, prepare_assets, sample_scene

SPLITS = ("training", "evaluation")
SCALE_BONE = (9, 10)  # FreiHAND's scale: length of the middle finger's proximal phalanx.
METRE_DIGITS = 6
# Random streams of one example: its labels, then its appearance, one stream per background.
GEOMETRY, APPEARANCE = 0, 1


@dataclasses.dataclass(frozen=True)
class Job:
    """One example to render; picklable. With the hand, it determines every byte."""

    out: Path
    split: str
    index: int
    count: int
    backgrounds: int
    seed: int
    recipe: Recipe


def example_rng(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    """The random generator of one stream of one example, the same in every process."""
    return np.random.default_rng([seed, SPLITS.index(split), index, stream])


def annotation_rows(
    intrinsics: Float[np.ndarray, "3 3"],
    joints_m: Float[np.ndarray, "n 3"],
    verts_m: Float[np.ndarray, "v 3"],
) -> tuple[str, str, str, str]:
    """JSON of one example's K, xyz, verts and scale."""
    bone = joints_m[SCALE_BONE[0]] - joints_m[SCALE_BONE[1]]
    values = (intrinsics, joints_m, verts_m, np.linalg.norm(bone))
    rows = (np.round(np.asarray(v, np.float64), METRE_DIGITS).tolist() for v in values)
    k, xyz, verts, scale = (json.dumps(row, separators=(",", ":")) for row in rows)
    return k, xyz, verts, scale


# Kept per process: there are many jobs, and the assets are large.
_worker: dict[str, RenderAssets] = {}


def start_worker(hand: HandModel) -> None:
    """Prepares this process for `render_example` with this hand."""
    end_with_parent()
    cv2.setNumThreads(1)  # Workers share the cores already.
    _worker["assets"] = prepare_assets(hand)


def render_example(job: Job) -> tuple[str, str, str, str]:
    """Writes images and mask of one example, after `start_worker`; returns its annotation rows."""
    assets, folder = _worker["assets"], job.out / job.split
    scene = sample_scene(example_rng(job.seed, job.split, job.index, GEOMETRY), assets, job.recipe)
    raster = rasterise_scene(scene, assets.surface)
    mask = encode_mask(visible_hand_mask(raster, assets.surface))
    (folder / "mask" / f"{job.index:08d}.jpg").write_bytes(mask)
    if job.recipe.keeps_coverage:
        coverage = encode_coverage(visible_coverage(raster))
        (folder / "coverage" / f"{job.index:08d}.png").write_bytes(coverage)
    for version in range(job.backgrounds):
        rng = example_rng(job.seed, job.split, job.index, APPEARANCE + version)
        image, quality = render_image(rng, scene, assets, raster, job.recipe)
        name = f"{job.index + version * job.count:08d}.jpg"
        (folder / "rgb" / name).write_bytes(encode_image(image, quality))
    return annotation_rows(scene.intrinsics, scene.joints_m, scene.verts_m)
