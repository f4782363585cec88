"""The installed weights of the hand detector: where they are, and whether they are the right ones.

Google's networks are licensed under Apache-2.0 and not part of this package;
`predict.detector_install` fetches them.
"""

import os
from pathlib import Path

import numpy as np
import platformdirs
from safetensors import SafetensorError, safe_open

from m3dhmr_jax.checkpoints.digest import digest_arrays
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.hand_detector_outputs import DetectorWeights

COMMAND = "m3dhmr detector install"
DATA_DIR_VARIABLE = "M3DHMR_DATA_DIR"
# Of the converted arrays: names, dtypes, shapes and bytes, however the file arranges them.
CONTENT_SHA256 = "786ffd82e77a80c0372a0b0a0e55db4c43989325c7f93fc7c818fcfc048487bf"


def weights_path() -> Path:
    """Where the converted weights are: the user's data folder, or that of M3DHMR_DATA_DIR."""
    folder = os.environ.get(DATA_DIR_VARIABLE) or platformdirs.user_data_dir(
        "m3dhmr_jax", appauthor=False
    )
    return Path(folder) / "hand_detector" / "hand_detector.safetensors"


def load_detector_weights(path: Path | None = None) -> DetectorWeights:
    """Reads converted weights; None: those in the user's data folder.

    Raises:
        UserError: if they are missing, corrupted or others.
    """
    path = weights_path() if path is None else path
    if not path.is_file():
        raise UserError(f"{path}: the hand detector is not installed; run {COMMAND}")
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as error:  # The latter two: its dtypes.
        raise UserError(
            f"{path}: corrupted ({error}): it must be a safetensors file with content "
            f"{CONTENT_SHA256}; run {COMMAND} again"
        ) from error
    found = digest_arrays(arrays)
    if found != CONTENT_SHA256:
        raise UserError(
            f"{path}: corrupted, or of another program: its content has SHA-256 {found} instead "
            f"of {CONTENT_SHA256}; run {COMMAND} again"
        )
    networks = [
        tuple(
            arrays[name].astype(np.float32) for name in sorted(arrays) if name.startswith(network)
        )
        for network in DetectorWeights._fields
    ]
    return DetectorWeights(*networks)
