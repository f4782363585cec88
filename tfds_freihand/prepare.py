"""Prepares a dataset once, and finds it again; `m3dhmr prepare` is its command."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.files import expand_home, explain_disk_full, file_lock
from tfds_freihand.freihand_dataset_builder import Builder

_TFDS_FILES = ("dataset_info.json", "features.json", "metadata.json")


@expand_home
def prepare(folder: Path | None, data_dir: Path, hand: HandModel | None = None) -> Path:
    """Writes the TFDS dataset of `folder` under `data_dir` or finds it there; returns its path.

    Without a folder the official archives are downloaded, unless a dataset exists already. It
    appears under its name only when it is complete; several processes may call this at once. `hand`
    turns the MANO parameters of releases without annotated vertices into meshes.

    Raises:
        UserError: if the folder is incomplete or corrupted, `data_dir` holds a dataset of other
            content or something else in its place, or a download does not have its recorded
            checksum.
        DiskFullError: if `data_dir` is full.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with file_lock(data_dir / "freihand.lock"), explain_disk_full(data_dir):
        builder = _builder(hand, data_dir)
        target = Path(builder.data_dir)
        if target.is_dir():
            if folder is not None:
                _check_content(builder, folder)
            return target
        if folder is not None:
            freihand.fingerprint(
                folder
            )  # Rejects an incomplete folder before TFDS prints anything.
        for leftover in _leftovers(target):
            shutil.rmtree(leftover)
        logging.info("Preparing %s from %s", target, folder or "the official archives")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=folder, force_checksums_validation=True, try_download_gcs=False
            )
        )
    return target


def _builder(hand: HandModel | None, data_dir: Path) -> Builder:
    """The builder, which reads the dataset that is there."""
    try:
        builder = Builder(hand, data_dir=data_dir, file_format="array_record")
    except Exception as error:  # Of many kinds: TFDS reads several files.
        raise UserError(
            f"{data_dir}: its dataset cannot be read ({str(error).splitlines()[0]}): it is "
            "corrupted or not of this program; choose another folder"
        ) from error
    target = Path(builder.data_dir)
    if target.is_dir() and not (target / "dataset_info.json").is_file():
        raise UserError(f"{target} exists, but is not a prepared dataset: choose another folder")
    return builder


def _leftovers(target: Path) -> Iterator[Path]:
    """The folders of killed builds: named by TFDS, with its files only."""
    for path in target.parent.glob(f"incomplete.??????_{target.name}"):
        names = [each.name for each in path.iterdir()] if path.is_dir() else [""]
        if all("array_record" in name or name in _TFDS_FILES for name in names):
            yield path


def _check_content(builder: Builder, folder: Path) -> None:
    recorded = (builder.info.metadata or {}).get("fingerprint", "unknown")
    found = freihand.fingerprint(folder)
    if found != recorded:
        raise UserError(
            f"{builder.data_dir} was prepared from other content (fingerprint {recorded[:12]}, "
            f"{source_of(Path(builder.data_dir))}) than {folder} has now ({found[:12]}): correct "
            "the name of one of them, or prepare this content into another folder"
        )


def source_of(dataset_dir: Path) -> str:
    """The folder that a dataset was prepared from; "" if it is not known.

    For archives that were downloaded it is the folder that configs unpack them into.
    """
    metadata = dataset_dir / "metadata.json"
    return json.loads(metadata.read_text()).get("source", "") if metadata.is_file() else ""
