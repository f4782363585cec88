"""Training tasks: network, loss and metrics for mesh recovery and for 2D pre-training.

Training and evaluation are the same for every task; what differs is here.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from m3dhmr_jax import losses
from m3dhmr_jax.builders import create_network, create_pretraining
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import hand_errors, make_landmark_step, make_predict_step
from m3dhmr_jax.metrics.baselines import mean_hand_error_fn, mean_landmark_error_fn
from m3dhmr_jax.metrics.freihand import scores
from m3dhmr_jax.metrics.landmarks import landmark_errors_px, landmark_scores
from m3dhmr_jax.metrics.reported import REPORTED_LANDMARK_METRICS, REPORTED_METRICS
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.types import Batch, Config


class Baseline(NamedTuple):
    """What the network is compared with."""

    name: str
    # Features of the training set that it is computed from.
    labels: tuple[str, ...]
    # From these labels to a function from a batch to per-example errors.
    make_error_fn: Callable[..., Callable[[Batch], Any]]


class Task(NamedTuple):
    network: Network
    # (pred1, view1, pred2, view2, valid=..., quality=...) to loss terms, which
    # `config.loss.weights` names.
    loss_terms_fn: Callable[..., dict[str, Float[Array, ""]]]
    # The epoch from which a loss term counts; default: 0.
    start_epoch: Mapping[str, float]
    # (params, stats, batch) to predictions in the image or in camera space.
    predict_step: Callable[[Any, Any, Batch], Any]
    # (predictions, batch) to per-example errors, and all of these to named scores.
    error_fn: Callable[[Any, Batch], Any]
    scores: Callable[[Any], dict[str, float]]
    # The scores that papers report, with their names there.
    reported_metrics: Mapping[str, str]
    # The score whose smallest value selects the best checkpoint.
    best_metric: str
    baseline: Baseline
    # Whether predictions are `CameraHands`, which evaluation also reports and saves.
    predicts_meshes: bool


def create_task(config: Config, hand: HandModel, *, abstract: bool = False) -> Task:
    """The task of `config.task`; `abstract` as in `create_network`.

    Raises:
        UserError: if it is neither "mesh" nor "landmarks", or a field of the model has a bad value.
    """
    if config.task == "mesh":
        return _mesh(config, hand, abstract)
    if config.task == "landmarks":
        return _landmarks(config, abstract)
    raise UserError(f"task={config.task!r} must be 'mesh' or 'landmarks'")


def _mesh(config: Config, hand: HandModel, abstract: bool) -> Task:
    network = create_network(config, hand, abstract=abstract)
    crop_px = network.image_size
    start_epoch = config.loss.consistency_start_epoch
    return Task(
        network=network,
        loss_terms_fn=functools.partial(
            losses.two_view_terms,
            faces=hand.faces,
            crop_px=crop_px,
            reduce=losses.reduction(config.loss.reduction),
        ),
        start_epoch={"con3d": start_epoch, "con2d": start_epoch},
        predict_step=make_predict_step(network.eval_graphdef, hand.joint_regressor, crop_px),
        error_fn=hand_errors,
        scores=scores,
        reported_metrics=REPORTED_METRICS,
        best_metric="pa_mpvpe_mm",
        baseline=Baseline(
            "mean_hand", ("verts",), functools.partial(mean_hand_error_fn, hand=hand)
        ),
        predicts_meshes=True,
    )


def _landmarks(config: Config, abstract: bool) -> Task:
    network = create_pretraining(config, abstract=abstract)
    sigma_cells = config.loss.heatmap_sigma_cells
    return Task(
        network=network,
        loss_terms_fn=functools.partial(losses.two_view_terms_2d, sigma_cells=sigma_cells),
        start_epoch={},
        predict_step=make_landmark_step(network.eval_graphdef, network.image_size),
        error_fn=landmark_errors_px,
        scores=landmark_scores,
        reported_metrics=REPORTED_LANDMARK_METRICS,
        best_metric="landmark_error_px",
        baseline=Baseline("mean_landmarks", ("xyz", "K"), mean_landmark_error_fn),
        predicts_meshes=False,
    )
