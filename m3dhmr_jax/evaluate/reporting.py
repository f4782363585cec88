"""Makes the report of an evaluation from what was gathered."""

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import simplejpeg

from m3dhmr_jax.data import loader
from m3dhmr_jax.evaluate.focal_noise import HOW
from m3dhmr_jax.evaluate.report.cases import Labelled, gallery
from m3dhmr_jax.evaluate.report.page import About, Entry, render
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import CameraHands
from m3dhmr_jax.synthetic.writer import MANIFEST
from m3dhmr_jax.types import Config

FREIHAND_SIZES = {"train": 130_240, "test": 3_960}
PACKAGES = ("m3dhmr_jax", "jax", "flax", "optax", "numpy", "opencv-python-headless", "plotly")


def write_report(
    path: Path,
    model: Entry,
    constant: Entry,
    noisy: Mapping[str, float],
    answers: CameraHands,
    hand: HandModel,
    data: Path,
    origin: About,
) -> None:
    """Writes the page; `data` is the prepared dataset, whose test photos the gallery shows."""
    source = loader.open_split(data, "test")

    def labelled(sample: int) -> Labelled:
        record = source[sample]
        photo = simplejpeg.decode_jpeg(record["image"])
        return Labelled(photo, np.asarray(record["K"]), np.asarray(record["verts"]))

    cases = gallery(model.errors, answers, labelled, hand)
    page = render(model, constant, noisy, cases, hand, origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def about(config: Config, data: Path, step: int) -> About:
    """Where the numbers come from."""
    checkpoint = config.eval.checkpoint
    trained_on = photos_of(config, data, "train")
    if checkpoint not in ("newest", "best"):
        trained_on = f"data unknown here (weights of {checkpoint})"
    facts = {"step": f"{step:,}", "checkpoint": checkpoint}
    if config.init_from:
        facts["started from"] = config.init_from
    return About(
        title="M3DHMR: evaluation report",
        trained_on=trained_on,
        tested_on=photos_of(config, data, "test"),
        facts=facts,
        config={name: str(value) for name, value in _flat(config.to_dict()).items()},
        versions={"Python": platform.python_version(), "device": jax.devices()[0].device_kind}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        focal_noise=HOW,
    )


def photos_of(config: Config, data: Path, split: str) -> str:
    """How many photos a split has and what they are, in words."""
    count, source = loader.size(data, split), config.data.source
    origin = Path(source.folder) / MANIFEST
    if origin.is_file() or source.synthetic_train:
        return f"{count:,} synthetic photos"
    sizes = {name: loader.size(data, name) for name in FREIHAND_SIZES}
    if sizes == FREIHAND_SIZES:
        return f"FreiHAND ({count:,} photos)"
    return f"{count:,} photos of {source.folder}"


def _flat(tree: dict, above: str = "") -> dict[str, object]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat
