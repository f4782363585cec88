"""Finding, making and checking the dataset of an experiment."""

import os
from pathlib import Path

import numpy as np

from m3dhmr_jax.data import freihand, loader
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.synthetic.recipe import RECIPES
from m3dhmr_jax.synthetic.writer import check_manifest, is_finished, manifest, write_dataset
from tfds_freihand.prepare import prepare

RECORDS_LOOKED_AT = 32


@processes.once_per_host
def open_dataset(
    hand: HandModel,
    *,
    folder: str,
    prepared: str,
    synthetic_train: int,
    synthetic_test: int,
    recipe: str,
    seed: int,
) -> Path:
    """The prepared dataset of `folder`, checked against `hand`; both are made on first use.

    Where `folder` is not there and `synthetic_train` is not 0, a synthetic set is rendered into it.

    Raises:
        FileNotFoundError, ValueError: if the folder is incomplete or damaged, or a synthetic set
            that was made otherwise, the recipe is unknown or the meshes are of another hand.
    """
    source = Path(folder)
    if synthetic_train:
        sizes = synthetic_train, synthetic_test
        _render_once(source, *sizes, seed=seed, recipe=recipe, hand=hand)
    if not source.is_dir() and not any(Path(prepared).glob("*/*/dataset_info.json")):
        raise FileNotFoundError(
            f"data.source.folder={folder}: no such folder, and no prepared dataset in {prepared}; "
            "unpack FreiHAND there, download it with python -m tfds_freihand.prepare, or ask for "
            "a synthetic set with data.source.synthetic_train"
        )
    dataset_dir = prepare(source if source.is_dir() else None, Path(prepared), hand)
    check_hand_fits(dataset_dir, hand)
    return dataset_dir


def _render_once(
    folder: Path, n_train: int, n_test: int, *, seed: int, recipe: str, hand: HandModel
) -> None:
    """Renders a synthetic set into `folder`, or checks that what is there was rendered so."""
    if recipe not in RECIPES:
        raise ValueError(f"data.source.recipe={recipe!r} must be one of {sorted(RECIPES)}")
    backgrounds, workers = 1, os.cpu_count() or 1
    if is_finished(folder):
        wanted = manifest(n_train, n_test, seed, RECIPES[recipe], backgrounds, hand)
        check_manifest(folder, wanted)
        return
    write_dataset(folder, n_train, n_test, seed, workers, RECIPES[recipe], backgrounds, hand)


def check_hand_fits(dataset_dir: Path, hand: HandModel) -> None:
    """Raises ValueError if the meshes of a dataset are not numbered as the hand's."""
    source = loader.open_split(dataset_dir, "test")
    rows = np.linspace(0, len(source) - 1, min(len(source), RECORDS_LOOKED_AT)).astype(int)
    records = [source[int(row)] for row in rows]
    verts_m, joints_m = (
        np.stack([record[name] for record in records]) for name in ("verts", "xyz")
    )
    off_m = freihand.joint_distance_m(hand, verts_m, joints_m)
    if off_m > freihand.LABELS_AGREE_M:
        raise ValueError(
            f"{dataset_dir}: landmarks regressed from its meshes are {1000 * off_m:.0f} mm from "
            "its own, so the meshes are numbered as another hand's: set --config.hand to the hand "
            "that the dataset was made with. FreiHAND's meshes are numbered as MANO's "
            "(--config.hand=/path/to/MANO_RIGHT.pkl), those of synthetic sets as the built-in "
            "hand's (--config.hand=) unless they were rendered from another"
        )
