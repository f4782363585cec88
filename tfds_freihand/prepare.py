"""Prepares a dataset once, and finds it again: `python -m tfds_freihand.prepare --folder F`."""

import shutil
import sys
from pathlib import Path

import tensorflow_datasets as tfds
from absl import app, flags, logging

from m3dhmr_jax.data import freihand
from m3dhmr_jax.hand import HandModel, load_mano
from m3dhmr_jax.runtime.files import explain_disk_full, file_lock
from tfds_freihand.freihand_dataset_builder import Builder


def prepare(folder: Path | None, data_dir: Path, hand: HandModel | None = None) -> Path:
    """Writes the TFDS dataset of `folder` under `data_dir`, or finds it there; its directory.

    Without a folder the official archives are downloaded, unless a dataset is there already. It
    appears under its name only when it is complete; several processes may ask at once. `hand` poses
    the parameters of releases without lists of vertices.

    Raises:
        FileNotFoundError: if the folder lacks a file of the official layout.
        ValueError: if `data_dir` holds a dataset made from other content, or the folder's content
            is damaged.
        DiskFullError: if there is no room in `data_dir`.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with file_lock(data_dir / "freihand.lock"), explain_disk_full(data_dir):
        builder = Builder(hand, data_dir=data_dir, file_format="array_record")
        target = Path(builder.data_dir)
        if target.is_dir():
            if folder is not None:
                _refuse_other_content(builder, folder)
            return target
        if folder is not None:
            freihand.fingerprint(folder)  # Refuses an incomplete folder before TFDS says a word.
        for leftover in target.parent.glob("incomplete.*"):  # Of a build that was killed.
            shutil.rmtree(leftover)
        logging.info("Preparing %s from %s", target, folder or "the official archives")
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=folder, force_checksums_validation=True, try_download_gcs=False
            )
        )
    return target


def _refuse_other_content(builder: Builder, folder: Path) -> None:
    recorded = (builder.info.metadata or {}).get("fingerprint", "unknown")
    found = freihand.fingerprint(folder)
    if found != recorded:
        raise ValueError(
            f"{builder.data_dir} was made from other content (fingerprint {recorded[:12]}) than "
            f"{folder} has now ({found[:12]}): delete the former or choose another data directory"
        )


def main(_) -> None:
    folder, hand = flags.FLAGS.folder, flags.FLAGS.hand
    try:
        model = load_mano(hand) if hand else None
        print(prepare(Path(folder) if folder else None, Path(flags.FLAGS.data_dir), model))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    flags.DEFINE_string("folder", None, "Folder in the official layout; none: download.")
    flags.DEFINE_string("hand", None, "Your MANO_RIGHT.pkl, for folders without vertex lists.")
    flags.DEFINE_string("data_dir", "data/tfds", "Where prepared datasets live.")
    app.run(main)
