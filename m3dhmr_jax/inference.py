"""From crops to hands in camera space: the device side of evaluation and prediction.

Axes: b batch, s crop side, n joints or landmarks, v vertices.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.camera.pinhole import apply_affine, rotate_about_optical_axis
from m3dhmr_jax.camera.root_recovery import Silhouette, recover_roots
from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.data.augment import eval_view, normalise
from m3dhmr_jax.metrics.freihand import SampleMetrics, batch_metrics
from m3dhmr_jax.types import (
    MESH_UNIT_M,
    ROOT,
    Batch,
    CameraHands,
    FloatArray,
    LandmarkPrediction,
    Prediction,
)

CompilerOptions = Mapping[str, bool | int | str]
# The whole program as one CUDA graph. By default convolutions stay outside and are launched one by
# one, which for a single hand takes longer than computing them.
GPU_OPTIONS: CompilerOptions = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONVOLUTION",
    "xla_gpu_command_buffer_scheduling_mode": "CONCURRENT",
    "xla_gpu_graph_min_graph_size": 1,
}


def compiler_options(
    gpu_options: CompilerOptions = GPU_OPTIONS,
) -> dict[str, bool | int | str] | None:
    """Compiler options for small batches; None if this XLA does not know all of them."""
    if jax.default_backend() != "gpu" or not _is_supported(tuple(gpu_options.items())):
        return None
    return dict(gpu_options)


@functools.cache
def _is_supported(options: tuple[tuple[str, bool | int | str], ...]) -> bool:
    """Whether the compiler accepts the options: their names change between XLA versions."""
    try:
        jax.jit(jnp.negative, compiler_options=dict(options)).lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def predict(
    eval_graphdef: Any, params: Any, stats: Any, image: Float[FloatArray, "b s s 3"]
) -> Any:
    """The network's prediction at inference: a pure function of its arguments."""
    return nnx.merge(eval_graphdef, params, stats)(image)


def predict_crops(
    eval_graphdef: Any, params: Any, stats: Any, crops: UInt8[FloatArray, "b s s 3"]
) -> Prediction:
    """The network's prediction for crops made on the host: RGB."""
    image = jax.vmap(normalise)(jnp.asarray(crops, jnp.float32) / 255)
    return predict(eval_graphdef, params, stats, image)


def rotate_back(prediction: Prediction, img_from_crop: Float[FloatArray, "b 2 3"]) -> Prediction:
    """Rotates predicted meshes about the optical axis as their crops are in the image."""
    angle_rad = jnp.arctan2(img_from_crop[:, 1, 0], img_from_crop[:, 0, 0])
    verts = jax.vmap(rotate_about_optical_axis)(jnp.asarray(prediction.verts), -angle_rad)
    return prediction._replace(verts=verts)


def to_camera(
    prediction: Prediction,
    img_from_crop: Float[FloatArray, "b 2 3"],
    intrinsics: Float[FloatArray, "b 3 3"],
    joint_regressor: Float[np.ndarray, "n v"],
    crop_px: int,
    extents: SilhouetteExtent | None = None,
) -> CameraHands:
    """Places predicted meshes in camera space, where their joints project to their landmarks."""
    verts_m = jnp.asarray(prediction.verts) * MESH_UNIT_M
    # By default accelerators round the factors to 8 or 11 bits: errors of up to 0.6 mm.
    joints_m = jnp.einsum("nv,bvc->bnc", joint_regressor, verts_m, precision="highest")
    landmarks_px = _landmarks_px(prediction, img_from_crop, crop_px)
    return place(landmarks_px, joints_m, verts_m, intrinsics, extents)


def _landmarks_px(
    prediction: Prediction | LandmarkPrediction,
    img_from_crop: Float[FloatArray, "b 2 3"],
    crop_px: int,
) -> Float[Array, "b n 2"]:
    """Predicted landmarks in pixels of the whole image."""
    return jax.vmap(apply_affine)(prediction.landmarks_01 * crop_px, jnp.asarray(img_from_crop))


def place(
    landmarks_px: Float[FloatArray, "b n 2"],
    joints_m: Float[FloatArray, "b n 3"],
    verts_m: Float[FloatArray, "b v 3"],
    intrinsics: Float[FloatArray, "b 3 3"],
    extents: SilhouetteExtent | None = None,
) -> CameraHands:
    """Moves hands to where these cameras observe their landmarks, and their masks if given."""
    root_m = jnp.asarray(joints_m)[:, ROOT, None]
    joints_m, verts_m = joints_m - root_m, verts_m - root_m
    silhouette = None if extents is None else Silhouette(verts_m, extents)
    root = recover_roots(joints_m, jnp.asarray(landmarks_px), jnp.asarray(intrinsics), silhouette)
    t_m = root.t_m[:, None]
    return CameraHands(
        jnp.asarray(landmarks_px), joints_m + t_m, verts_m + t_m, root.covariance_m2, root.noise_px
    )


def make_crop_step(
    eval_graphdef: Any, joint_regressor: Float[np.ndarray, "n v"], crop_px: int
) -> Callable[..., CameraHands]:
    """A jitted function (params, stats, crops, img_from_crop, K of the images[, extents]) to hands.

    For crops made on the host: RGB, uint8, (b, s, s, 3); what a crop is rotated by, the hand is
    rotated back. `extents`, if given, are those of the hands' masks in the whole images, NO_EXTENT
    for a hand without one.
    """

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def crop_step(
        params: Any,
        stats: Any,
        crops: UInt8[FloatArray, "b s s 3"],
        img_from_crop: Float[FloatArray, "b 2 3"],
        intrinsics: Float[FloatArray, "b 3 3"],
        extents: SilhouetteExtent | None = None,
    ) -> CameraHands:
        prediction = rotate_back(predict_crops(eval_graphdef, params, stats, crops), img_from_crop)
        return to_camera(prediction, img_from_crop, intrinsics, joint_regressor, crop_px, extents)

    return crop_step


def make_predict_step(
    eval_graphdef: Any, joint_regressor: Float[np.ndarray, "n v"], crop_px: int
) -> Callable[[Any, Any, Batch], CameraHands]:
    """A jitted pure function (params, stats, batch) to the predicted hands.

    It uses images and K but no labels, so its output may be submitted as predictions.
    """

    @jax.jit
    def predict_step(params: Any, stats: Any, batch: Batch) -> CameraHands:
        view = eval_view(batch, crop_px)
        prediction = predict(eval_graphdef, params, stats, view.image)
        return to_camera(prediction, view.img_from_crop, batch.intrinsics, joint_regressor, crop_px)

    return predict_step


def hand_errors(hands: CameraHands, batch: Batch) -> SampleMetrics:
    """Errors of each hand, from which scores are computed."""
    return batch_metrics(hands.joints_m, hands.verts_m, batch.joints_m, batch.verts_m)


def make_landmark_step(
    eval_graphdef: Any, crop_px: int
) -> Callable[[Any, Any, Batch], Float[Array, "b n 2"]]:
    """`make_predict_step` for a network that predicts landmarks only: pixels of the image."""

    @jax.jit
    def landmark_step(params: Any, stats: Any, batch: Batch) -> Float[Array, "b n 2"]:
        view = eval_view(batch, crop_px)
        prediction = predict(eval_graphdef, params, stats, view.image)
        return _landmarks_px(prediction, view.img_from_crop, crop_px)

    return landmark_step
