"""From crops to hands in front of the camera: what evaluation and prediction do on the device.

Axes: b batch, s crop side, n landmarks, v vertices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.camera.pinhole import apply_affine
from m3dhmr_jax.camera.root_recovery import recover_roots
from m3dhmr_jax.data.augment import eval_view, normalise
from m3dhmr_jax.metrics.freihand import SampleMetrics, batch_metrics
from m3dhmr_jax.types import MESH_UNIT_M, ROOT, Batch, FloatArray, Prediction

# One launch of everything; by default XLA launches convolutions alone, which for one hand takes
# longer than they do.
GPU_OPTIONS: dict[str, bool | int | str] = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONVOLUTION",
    "xla_gpu_command_buffer_scheduling_mode": "CONCURRENT",
    "xla_gpu_graph_min_graph_size": 1,
}


def compiler_options() -> dict[str, bool | int | str] | None:
    """For programs that answer few hands at a time."""
    return GPU_OPTIONS if jax.default_backend() == "gpu" else None


class CameraHands(NamedTuple):
    """Hands in front of the camera."""

    landmarks_px: Float[
        FloatArray, "b n 2"
    ]  # Landmarks as the network sees them, pixels of the photo.
    joints_m: Float[FloatArray, "b n 3"]  # Landmarks as regressed from the mesh.
    verts_m: Float[FloatArray, "b v 3"]
    root_covariance_m2: Float[FloatArray, "b 3 3"]  # Of the place of the whole hand.
    noise_px: Float[FloatArray, " b"]  # By which landmarks miss the mesh, those aside that mislead.


def predict(
    eval_graphdef: Any, params: Any, stats: Any, image: Float[FloatArray, "b s s 3"]
) -> Any:
    """The network's answer in use: a pure function of its arguments."""
    return nnx.merge(eval_graphdef, params, stats)(image)


def to_camera(
    prediction: Prediction,
    img_from_crop: Float[FloatArray, "b 2 3"],
    intrinsics: Float[FloatArray, "b 3 3"],
    joint_regressor: Float[np.ndarray, "n v"],
    crop_px: int,
) -> CameraHands:
    """Puts predicted meshes where their landmarks are seen."""
    verts_m = jnp.asarray(prediction.verts) * MESH_UNIT_M
    joints_m = jnp.einsum("nv,bvc->bnc", joint_regressor, verts_m)
    landmarks_px = jax.vmap(apply_affine)(
        prediction.landmarks_01 * crop_px, jnp.asarray(img_from_crop)
    )
    return place(landmarks_px, joints_m, verts_m, intrinsics)


def place(
    landmarks_px: Float[FloatArray, "b n 2"],
    joints_m: Float[FloatArray, "b n 3"],
    verts_m: Float[FloatArray, "b v 3"],
    intrinsics: Float[FloatArray, "b 3 3"],
) -> CameraHands:
    """Hands where these cameras see their landmarks, wherever they stood before."""
    before_m = joints_m[:, ROOT, None]
    joints_m, verts_m = jnp.asarray(joints_m) - before_m, jnp.asarray(verts_m) - before_m
    root = recover_roots(joints_m, jnp.asarray(landmarks_px), jnp.asarray(intrinsics))
    t_m = root.t_m[:, None]
    return CameraHands(
        jnp.asarray(landmarks_px), joints_m + t_m, verts_m + t_m, root.covariance_m2, root.noise_px
    )


def make_crop_step(
    eval_graphdef: Any, joint_regressor: Float[np.ndarray, "n v"], crop_px: int
) -> Callable[..., CameraHands]:
    """A jitted function (params, stats, crops, img_from_crop, K of the photos) to hands.

    For crops that were cut on the host: RGB, uint8, (b, s, s, 3).
    """

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def crop_step(
        params: Any,
        stats: Any,
        crops: UInt8[FloatArray, "b s s 3"],
        img_from_crop: Float[FloatArray, "b 2 3"],
        intrinsics: Float[FloatArray, "b 3 3"],
    ) -> CameraHands:
        image = jax.vmap(normalise)(crops.astype(jnp.float32) / 255)
        prediction = predict(eval_graphdef, params, stats, image)
        return to_camera(prediction, img_from_crop, intrinsics, joint_regressor, crop_px)

    return crop_step


def make_predict_step(
    eval_graphdef: Any, joint_regressor: Float[np.ndarray, "n v"], crop_px: int
) -> Callable[[Any, Any, Batch], CameraHands]:
    """A jitted pure function (params, stats, batch) to the hands that the network sees.

    It reads photos and K and no label: the hands may be handed in as predictions.
    """

    @jax.jit
    def predict_step(params: Any, stats: Any, batch: Batch) -> CameraHands:
        view = eval_view(batch, crop_px)
        prediction = predict(eval_graphdef, params, stats, view.image)
        return to_camera(prediction, view.img_from_crop, batch.intrinsics, joint_regressor, crop_px)

    return predict_step


def hand_errors(hands: CameraHands, batch: Batch) -> SampleMetrics:
    """What is kept of each hand for its scores."""
    return batch_metrics(hands.joints_m, hands.verts_m, batch.joints_m, batch.verts_m)


def make_eval_step(
    eval_graphdef: Any, joint_regressor: Float[np.ndarray, "n v"], crop_px: int
) -> Callable[[Any, Any, Batch], SampleMetrics]:
    """A jitted pure function (params, stats, batch) to the errors of each example."""
    predict_step = make_predict_step(eval_graphdef, joint_regressor, crop_px)

    @jax.jit
    def eval_step(params: Any, stats: Any, batch: Batch) -> SampleMetrics:
        return hand_errors(predict_step(params, stats, batch), batch)

    return eval_step


def make_landmark_step(
    eval_graphdef: Any, crop_px: int
) -> Callable[[Any, Any, Batch], Float[Array, "b n 2"]]:
    """`make_predict_step` for a network that finds landmarks only: their pixels in the photo."""

    @jax.jit
    def landmark_step(params: Any, stats: Any, batch: Batch) -> Float[Array, "b n 2"]:
        view = eval_view(batch, crop_px)
        landmarks_01 = predict(eval_graphdef, params, stats, view.image).landmarks_01
        return jax.vmap(apply_affine)(landmarks_01 * crop_px, view.img_from_crop)

    return landmark_step
