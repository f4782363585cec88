"""One example of a synthetic set: its randomness, its pictures and its annotation."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.workers import end_with_parent
from m3dhmr_jax.synthetic.imaging import encode_mask, encode_photo
from m3dhmr_jax.synthetic.recipe import Recipe
from m3dhmr_jax.synthetic.render import draw, mask_of, photograph
from m3dhmr_jax.synthetic.scene import Kit, Scene, make_kit, sample_scene

SPLITS = ("training", "evaluation")
SCALE_BONE = (9, 10)  # FreiHAND's unit: the middle finger's proximal phalanx.
METRE_DIGITS = 6
GEOMETRY, LOOKS = 0, 1  # Streams of one example: its labels, then one stream per background.


@dataclasses.dataclass(frozen=True)
class Job:
    """One example to make; picklable, and with the hand all that its bytes depend on."""

    out: Path
    split: str
    index: int
    count: int
    backgrounds: int
    seed: int
    recipe: Recipe


def example_rng(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    """The randomness of one example, whoever makes it."""
    return np.random.default_rng([seed, SPLITS.index(split), index, stream])


def annotation_rows(scene: Scene) -> tuple[str, str, str, str]:
    """JSON of one example's K, xyz, verts and scale."""
    bone = scene.joints_m[SCALE_BONE[0]] - scene.joints_m[SCALE_BONE[1]]
    values = (scene.intrinsics, scene.joints_m, scene.verts_m, np.linalg.norm(bone))
    rows = (np.round(np.asarray(v, np.float64), METRE_DIGITS).tolist() for v in values)
    k, xyz, verts, scale = (json.dumps(row, separators=(",", ":")) for row in rows)
    return k, xyz, verts, scale


_worker: dict[str, Kit] = {}  # Of this process: jobs are many, and a hand is large.


def start_worker(hand: HandModel) -> None:
    """Prepares this process for the jobs of a hand."""
    end_with_parent()
    cv2.setNumThreads(1)  # Workers share the cores already.
    _worker["kit"] = make_kit(hand)


def make_example(job: Job) -> tuple[str, str, str, str]:
    """Writes the pictures of one example, after `start_worker`; returns its annotation rows."""
    kit, folder = _worker["kit"], job.out / job.split
    scene = sample_scene(example_rng(job.seed, job.split, job.index, GEOMETRY), kit, job.recipe)
    drawn = draw(scene, kit.surface)
    mask = encode_mask(mask_of(drawn, kit.surface))
    (folder / "mask" / f"{job.index:08d}.jpg").write_bytes(mask)
    for version in range(job.backgrounds):
        rng = example_rng(job.seed, job.split, job.index, LOOKS + version)
        photo, quality = photograph(rng, scene, kit, drawn)
        name = f"{job.index + version * job.count:08d}.jpg"
        (folder / "rgb" / name).write_bytes(encode_photo(photo, quality))
    return annotation_rows(scene)
