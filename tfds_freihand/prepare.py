"""Prepares a dataset once, and finds it again; `m3dhmr prepare` is its command."""

import shutil
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.runtime.files import explain_disk_full, file_lock
from tfds_freihand.freihand_dataset_builder import Builder


def prepare(folder: Path | None, data_dir: Path, hand: HandModel | None = None) -> Path:
    """Writes the TFDS dataset of `folder` under `data_dir` or finds it there; returns its path.

    Without a folder the official archives are downloaded, unless a dataset exists already. It
    appears under its name only when it is complete; several processes may call this at once. `hand`
    turns the MANO parameters of releases without annotated vertices into meshes.

    Raises:
        UserError: if the folder is incomplete or corrupted, `data_dir` holds a dataset of other
            content, or a download does not have its recorded checksum.
        DiskFullError: if `data_dir` is full.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with file_lock(data_dir / "freihand.lock"), explain_disk_full(data_dir):
        builder = Builder(hand, data_dir=data_dir, file_format="array_record")
        target = Path(builder.data_dir)
        if target.is_dir():
            if folder is not None:
                _check_content(builder, folder)
            return target
        if folder is not None:
            freihand.fingerprint(
                folder
            )  # Rejects an incomplete folder before TFDS prints anything.
        for leftover in target.parent.glob("incomplete.*"):  # Left by a killed build.
            shutil.rmtree(leftover)
        logging.info("Preparing %s from %s", target, folder or "the official archives")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=folder, force_checksums_validation=True, try_download_gcs=False
            )
        )
    return target


def _check_content(builder: Builder, folder: Path) -> None:
    recorded = (builder.info.metadata or {}).get("fingerprint", "unknown")
    found = freihand.fingerprint(folder)
    if found != recorded:
        raise UserError(
            f"{builder.data_dir} was prepared from other content (fingerprint {recorded[:12]}) "
            f"than {folder} has now ({found[:12]}): delete the former or choose another folder"
        )
