"""Builds the HTML report of an evaluation."""

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import simplejpeg

from m3dhmr_jax.config_fields import flatten
from m3dhmr_jax.data import loader
from m3dhmr_jax.evaluate.focal_noise import DESCRIPTION
from m3dhmr_jax.evaluate.report.cases import Labelled, gallery
from m3dhmr_jax.evaluate.report.entry import Entry
from m3dhmr_jax.evaluate.report.page import About, render
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.synthetic.writer import MANIFEST
from m3dhmr_jax.types import CameraHands, Config

FREIHAND_SIZES = {"train": 130_240, "test": 3_960}
PACKAGES = ("m3dhmr_jax", "jax", "flax", "optax", "numpy", "opencv-python-headless", "plotly")


def write_report(
    path: Path,
    model: Entry,
    baseline: Entry,
    perturbed_focal: Mapping[str, float],
    predictions: CameraHands,
    hand: HandModel,
    data: Path,
    about: About,
) -> None:
    """Writes the page; `data` is the prepared dataset, whose test images the gallery shows."""
    source = loader.open_split(data, "test")

    def labelled(sample: int) -> Labelled:
        record = source[sample]
        image = simplejpeg.decode_jpeg(record["image"])
        return Labelled(image, np.asarray(record["K"]), np.asarray(record["verts"]))

    cases = gallery(model.errors, predictions, labelled, hand)
    page = render(model, baseline, perturbed_focal, cases, hand, about)
    with write_atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")


def about(config: Config, data: Path, step: int) -> About:
    """Which data, checkpoint and config the scores belong to."""
    checkpoint = config.eval.checkpoint
    trained_on = describe_split(config, data, "train")
    if checkpoint not in ("newest", "best"):
        trained_on = f"data unknown here (weights of {checkpoint})"
    facts = {"step": f"{step:,}", "checkpoint": checkpoint}
    if config.init_from:
        facts["started from"] = config.init_from
    return About(
        title="M3DHMR: evaluation report",
        trained_on=trained_on,
        tested_on=describe_split(config, data, "test"),
        facts=facts,
        config={name: str(value) for name, value in flatten(config.to_dict()).items()},
        versions={"Python": platform.python_version(), "device": jax.devices()[0].device_kind}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        focal_noise=DESCRIPTION,
    )


def describe_split(config: Config, data: Path, split: str) -> str:
    """Size and source of a split, in words."""
    count, source = loader.size(data, split), config.data.source
    manifest = Path(source.folder) / MANIFEST
    if manifest.is_file() or source.synthetic_train:
        return f"{count:,} synthetic images"
    sizes = {name: loader.size(data, name) for name in FREIHAND_SIZES}
    if sizes == FREIHAND_SIZES:
        return f"FreiHAND ({count:,} images)"
    return f"{count:,} images of {source.folder}"
