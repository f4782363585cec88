"""What a run learns: a network, what its answers cost, and how good they are.

Training and evaluation are the same for every task; all that differs is here.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from m3dhmr_jax import losses
from m3dhmr_jax.builders import Network, create_network, create_pretraining
from m3dhmr_jax.evaluate.scoring import REPORTED_METRICS
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import (
    hand_errors,
    landmark_errors_px,
    make_landmark_step,
    make_predict_step,
)
from m3dhmr_jax.metrics.baselines import mean_hand_error_fn, mean_landmark_error_fn
from m3dhmr_jax.metrics.freihand import scores
from m3dhmr_jax.metrics.landmarks import landmark_scores
from m3dhmr_jax.training.step import LossTermsFn
from m3dhmr_jax.types import Batch, Config


class Task(NamedTuple):
    network: Network
    loss_terms_fn: LossTermsFn  # Loss terms of two views; config.loss.weights names exactly these.
    start_epoch: Mapping[str, float]  # Terms that count from a later epoch on.
    predict_step: Callable[[Any, Any, Batch], Any]  # (params, stats, batch) to answers in photos.
    error_fn: Callable[[Any, Batch], Any]  # Of each example's answer.
    scores: Callable[[Any], dict[str, float]]  # Errors of all examples to named numbers.
    reported_metrics: Mapping[
        str, str
    ]  # The scores that papers quote, and how they are called there.
    best_metric: str  # The score whose smallest value makes the best checkpoint.
    constant_guess: tuple[str, Callable[[Path], Callable[[Batch], Any]]]  # Its name and errors.


def create_task(config: Config, hand: HandModel, *, abstract: bool = False) -> Task:
    """The task that `config.task` names; `abstract` as in `create_network`.

    Raises:
        ValueError: if it is neither "mesh" nor "landmarks", or a field of the model is bad.
    """
    if config.task == "mesh":
        return _mesh(config, hand, abstract)
    if config.task == "landmarks":
        return _landmarks(config, abstract)
    raise ValueError(f"task={config.task!r} must be 'mesh' or 'landmarks'")


def _mesh(config: Config, hand: HandModel, abstract: bool) -> Task:
    network = create_network(config, hand, abstract=abstract)
    size = network.image_size
    late = config.loss.consistency_start_epoch
    return Task(
        network=network,
        loss_terms_fn=functools.partial(
            losses.two_view_terms,
            faces=hand.faces,
            crop_px=size,
            reduce=losses.reduction(config.loss.reduction),
        ),
        start_epoch={"con3d": late, "con2d": late},
        predict_step=make_predict_step(network.eval_graphdef, hand.joint_regressor, size),
        error_fn=hand_errors,
        scores=scores,
        reported_metrics=REPORTED_METRICS,
        best_metric="pa_mpvpe_mm",
        constant_guess=("mean_hand", functools.partial(mean_hand_error_fn, hand=hand)),
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
        reported_metrics={
            "landmark_error_px": "mean error px",
            "landmark_median_px": "median error px",
            "pck_5px": "PCK@5px",
        },
        best_metric="landmark_error_px",
        constant_guess=("mean_landmarks", mean_landmark_error_fn),
    )
