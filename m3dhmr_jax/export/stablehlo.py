"""The whole step from crops to hands in camera space as one StableHLO file, by `jax.export`.

A program that loads the file needs JAX and nothing of this package.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import predict_crops, rotate_back, to_camera
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import FloatArray

PLATFORMS = ("cpu", "cuda", "tpu")
SMALLEST_HALF = 1024  # Parameters with fewer numbers stay float32.


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
    ) -> dict[str, Array]:
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
