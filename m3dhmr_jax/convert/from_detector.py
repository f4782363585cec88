"""From the hand detector's landmark network to the initial blocks of the MobileNet backbone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from m3dhmr_jax.checkpoints.weights import Arrays, check_weights_path, save_weights
from m3dhmr_jax.models.hand_detector_outputs import DetectorWeights
from m3dhmr_jax.models.mobilenet import BLOCKS
from m3dhmr_jax.runtime.files import expand_home

ORIGIN = "MediaPipe Hands, hand_landmark_full; The MediaPipe Authors; Apache-2.0"


@expand_home
def write_detector_blocks(weights: DetectorWeights, out: Path) -> list[str]:
    """Writes a weights file for `init_from` of a network with the backbone "mobilenet".

    Raises:
        UserError: if `out` exists or is not named as a weights file.
    """
    check_weights_path(out)
    params = detector_blocks(weights)
    save_weights(out, params, {}, {"from": ORIGIN})
    return [f"{ORIGIN}: {len(params)} arrays", f"Wrote {out}"]


def detector_blocks(weights: DetectorWeights) -> Arrays:
    """Stem and blocks of `models.mobilenet.MobileNet` under their names in the network."""
    take = (np.asarray(x) for x in weights.landmarks)
    params = dict(_layer("stem", take))
    for i in range(len(BLOCKS)):
        widens = i > 0  # Only the first block does not.
        for name in (*(("expand",) if widens else ()), "depthwise", "project"):
            params |= _layer(f"blocks/{i}/{name}", take)
    return {f"backbone/{name}": array for name, array in params.items()}


def _layer(name: str, take: Iterator[np.ndarray]) -> Arrays:
    """Kernel and bias of the next layer; of a depthwise one the kernel is (i, j, 1, c)."""
    kernel, bias = next(take), next(take)
    if kernel.ndim == 3:
        kernel = kernel[:, :, None]
    return {f"{name}/kernel": kernel, f"{name}/bias": bias}
