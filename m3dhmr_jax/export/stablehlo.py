"""The whole step from crops to hands in camera space as one StableHLO file, by `jax.export`.

A program that loads the file needs JAX and nothing of this package.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float, UInt8

from m3dhmr_jax.export import SMALLEST_HALF
from m3dhmr_jax.export.check import CropOutputs, RunCrops, write_checked
from m3dhmr_jax.export.trained import Trained
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import predict_crops, rotate_back, to_camera
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import FloatArray

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(trained: Trained, out: Path, half: bool) -> None:
    """Writes the step of a network, checks it and says how far it is from JAX.

    Raises:
        UserError: if the file does not compute what JAX does.
        DiskFullError: if the disk is full.
    """
    content = stablehlo_of(trained.network, trained.hand, half=half)
    with write_checked(out, trained, load_stablehlo, half=half) as path:
        path.write_bytes(content)


def load_stablehlo(path: Path) -> RunCrops:
    """Runs a file on the CPU, on crops that are whole images."""
    program = export.deserialize(bytearray(path.read_bytes()))
    call = jax.jit(program.call)

    def run(crops: UInt8[np.ndarray, "b s s 3"]) -> CropOutputs:
        b, s = crops.shape[:2]
        k = np.array([[s, 0, s / 2], [0, s, s / 2], [0, 0, 1]], np.float32)
        img_from_crop = np.eye(2, 3, dtype=np.float32)
        # Accelerators round the factors of products, for which the limits are too narrow.
        with jax.default_device(jax.devices("cpu")[0]):
            hands = call(crops, np.stack([img_from_crop] * b), np.stack([k] * b))
        return CropOutputs(*(np.asarray(hands[name]) for name in CropOutputs._fields))

    return run


@single_precision()
def stablehlo_of(network: Network, hand: HandModel, *, half: bool = False) -> bytes:
    """The serialized function (crops, img_from_crop, K) to a dict of hands, for any batch size.

    `half`: large parameters are stored as float16; they are computed with as float32.
    """
    params, stats = jax.device_get((network.params, network.stats))
    if half:
        params = jax.tree.map(
            lambda x: np.asarray(x, np.float16) if x.size >= SMALLEST_HALF else x, params
        )

    def hands_of_crops(
        crops: UInt8[FloatArray, "b s s 3"],
        img_from_crop: Float[FloatArray, "b 2 3"],
        intrinsics: Float[FloatArray, "b 3 3"],
    ) -> dict[str, FloatArray]:
        # Converted by the program that is exported: NumPy would do it before.
        single: Any = jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.float32), params)
        prediction = predict_crops(network.eval_graphdef, single, stats, crops)
        prediction = rotate_back(prediction, img_from_crop)
        size = network.image_size
        hands = to_camera(prediction, img_from_crop, intrinsics, hand.joint_regressor, size)
        return {
            "vertices_m": hands.verts_m,
            "joints_m": hands.joints_m,
            "landmarks_px": hands.landmarks_px,
            "root_covariance_m2": hands.root_covariance_m2,
            "noise_px": hands.noise_px,
        }

    (b,) = export.symbolic_shape("b")
    s = network.image_size
    inputs = (
        jax.ShapeDtypeStruct((b, s, s, 3), jnp.uint8),
        jax.ShapeDtypeStruct((b, 2, 3), jnp.float32),
        jax.ShapeDtypeStruct((b, 3, 3), jnp.float32),
    )
    exported = export.export(jax.jit(hands_of_crops), platforms=PLATFORMS)(*inputs)
    return bytes(exported.serialize())
