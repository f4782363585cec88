"""The dataset of an experiment: found, rendered or prepared, and checked."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3dhmr_jax.data import freihand, loader
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel, load_mano
from m3dhmr_jax.runtime import processes
from m3dhmr_jax.runtime.files import user_path
from m3dhmr_jax.synthetic.recipe import RECIPES
from m3dhmr_jax.synthetic.writer import check_manifest, is_finished, manifest, write_dataset
from tfds_freihand.prepare import prepare, source_of

N_CHECKED_RECORDS = 32


def prepare_folder(folder: Path | None, data_dir: Path, mano: Path | None = None) -> Path:
    """Prepares a folder in FreiHAND's layout once; returns the prepared dataset's path.

    Args:
        folder: None downloads the official archives.
        mano: MANO_RIGHT.pkl, for releases without annotation files of vertices.

    Raises:
        UserError: if the folder, the archives or the hand model are incomplete or corrupted.
        DiskFullError: if `data_dir` is full.
    """
    return prepare(folder, data_dir, load_mano(mano) if mano else None)


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
    """The prepared dataset of `folder`, checked against `hand`; both are created on first use.

    If `folder` does not exist and `synthetic_train` is not 0, a synthetic set is rendered into it.
    A folder may be deleted once it is prepared.

    Raises:
        UserError: if the folder is incomplete or corrupted, or a synthetic set with other settings;
            if it does not exist and the prepared dataset is that of another folder;
            if the recipe is unknown or the meshes belong to another hand model.
    """
    source = Path(folder)
    if not source.is_dir():
        _check_source(folder, Path(prepared))
    if synthetic_train:
        sizes = synthetic_train, synthetic_test
        _render_once(source, *sizes, seed=seed, recipe=recipe, hand=hand)
    if not source.is_dir() and not any(Path(prepared).glob("*/*/dataset_info.json")):
        raise UserError(
            f"data.source.folder={folder}: no such folder, and no prepared dataset in {prepared}; "
            "unpack FreiHAND there, download it with m3dhmr prepare, or render a synthetic set "
            "with data.source.synthetic_train"
        )
    dataset_dir = prepare(source if source.is_dir() else None, Path(prepared), hand)
    check_hand_fits(dataset_dir, hand)
    return dataset_dir


def open_mix(hand: HandModel, mix: Sequence[Any]) -> tuple[tuple[Path, float], ...]:
    """The prepared datasets of `config.data.mix`, checked against `hand`, with their shares.

    Raises:
        UserError: if an entry is not a folder and a share, the shares are not positive or leave
            nothing for `data.source`, there is no prepared dataset in a folder, or its meshes
            belong to another hand model.
    """
    for entry in mix:
        if not _is_folder_and_share(entry):
            raise UserError(
                f"data.mix: {entry!r} must be the folder of a prepared dataset and its share of "
                'the examples, such as ("data/tfds/mine", 0.3); shares are above 0 and below 1'
            )
    total = sum(share for _, share in mix)
    if total >= 1:
        raise UserError(
            f"data.mix: its shares add up to {total:g}, but must leave some of the examples for "
            "data.source: their sum must be below 1"
        )
    opened = tuple((_prepared_in(folder), float(share)) for folder, share in mix)
    for dataset_dir, _ in opened:
        check_hand_fits(dataset_dir, hand)
    return opened


def _is_folder_and_share(entry: object) -> bool:
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        return False
    folder, share = entry
    return isinstance(folder, str) and isinstance(share, int | float) and 0 < share < 1


def _prepared_in(folder: str) -> Path:
    found = sorted(user_path(folder).glob("*/*/dataset_info.json"))
    if not found:
        raise UserError(
            f"data.mix: no prepared dataset in {folder}; create one there with m3dhmr prepare "
            f"--out {folder}"
        )
    return found[0].parent


def _check_source(folder: str, prepared: Path) -> None:
    """Raises UserError if the dataset in `prepared`, if there is one, is not that of `folder`.

    A path counts as the same if its last two parts are: projects are moved as a whole.
    """
    for info in prepared.glob("*/*/dataset_info.json"):
        source = source_of(info.parent)
        if source and Path(folder).absolute().parts[-2:] != Path(source).parts[-2:]:
            raise UserError(
                f"data.source.folder={folder}: no such folder, and the dataset in "
                f"data.source.prepared={prepared} was prepared from {source}: correct the former, "
                "or set another data.source.prepared for a new dataset"
            )


def _render_once(
    folder: Path, n_train: int, n_test: int, *, seed: int, recipe: str, hand: HandModel
) -> None:
    """Renders a synthetic set into `folder`, or checks that the one there has these settings."""
    if recipe not in RECIPES:
        raise UserError(f"data.source.recipe={recipe!r} must be one of {sorted(RECIPES)}")
    backgrounds, workers = 1, os.cpu_count() or 1
    if is_finished(folder):
        wanted = manifest(n_train, n_test, seed, RECIPES[recipe], backgrounds, hand)
        check_manifest(folder, wanted)
        return
    write_dataset(folder, n_train, n_test, seed, workers, RECIPES[recipe], backgrounds, hand)


def check_hand_fits(dataset_dir: Path, hand: HandModel) -> None:
    """Raises UserError if the meshes of a dataset do not have the hand's vertex order."""
    source = loader.open_split(dataset_dir, "test")
    rows = np.linspace(0, len(source) - 1, min(len(source), N_CHECKED_RECORDS)).astype(int)
    records = [source[int(row)] for row in rows]
    verts_m, joints_m = (
        np.stack([record[name] for record in records]) for name in ("verts", "xyz")
    )
    distance_m = freihand.joint_distance_m(hand, verts_m, joints_m)
    if distance_m > freihand.MAX_JOINT_DISTANCE_M:
        raise UserError(
            f"{dataset_dir}: joints regressed from its meshes are {1000 * distance_m:.0f} mm from "
            "the annotated ones, so the meshes have another hand's vertex order: set --config.hand "
            "to the hand of the dataset. FreiHAND's meshes have MANO's order "
            "(--config.hand=/path/to/MANO_RIGHT.pkl), synthetic sets the built-in hand's "
            "(--config.hand=) unless they were rendered from another"
        )
