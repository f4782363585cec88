"""What a run learns: a network, what its answers cost, and how good they are.

Training and evaluation are the same for every task; all that differs is here.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from m3dhmr_jax import losses
from m3dhmr_jax.builders import Network, create_network, create_pretraining
from m3dhmr_jax.evaluate.scoring import SHOWN
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import (
    hand_errors,
    landmark_errors_px,
    make_answer_step,
    make_landmark_step,
)
from m3dhmr_jax.metrics.baselines import errors_of_mean_hand, errors_of_mean_landmarks
from m3dhmr_jax.metrics.freihand import scores
from m3dhmr_jax.metrics.landmarks import landmark_scores
from m3dhmr_jax.training.step import TermsOf
from m3dhmr_jax.types import Batch, Config


class Task(NamedTuple):
    network: Network
    terms_of: TermsOf  # Loss terms of two views; config.loss.weights names exactly these.
    from_epoch: Mapping[str, float]  # Terms that count from a later epoch on.
    answer_step: Callable[[Any, Any, Batch], Any]  # (params, stats, batch) to answers in photos.
    errors_of: Callable[[Any, Batch], Any]  # Of each example's answer.
    scores: Callable[[Any], dict[str, float]]  # Errors of all examples to named numbers.
    headline: Mapping[str, str]  # The scores that papers quote, and how they are called there.
    best_by: str  # The score whose smallest value makes the best checkpoint.
    constant_guess: tuple[str, Callable[[Path], Callable[[Batch], Any]]]  # Its name and errors.


def create_task(config: Config, hand: HandModel, *, drawn: bool = True) -> Task:
    """The task that `config.task` names; `drawn` as in `create_network`.

    Raises:
        ValueError: if it is neither "mesh" nor "landmarks", or a field of the model is bad.
    """
    if config.task == "mesh":
        return _mesh(config, hand, drawn)
    if config.task == "landmarks":
        return _landmarks(config, drawn)
    raise ValueError(f"task={config.task!r} must be 'mesh' or 'landmarks'")


def _mesh(config: Config, hand: HandModel, drawn: bool) -> Task:
    network = create_network(config, hand, drawn=drawn)
    size = network.image_size
    late = config.loss.consistency_from_epoch
    return Task(
        network=network,
        terms_of=functools.partial(losses.two_view_terms, faces=hand.faces, crop_px=size),
        from_epoch={"con3d": late, "con2d": late},
        answer_step=make_answer_step(network.eval_graphdef, hand.joint_regressor, size),
        errors_of=hand_errors,
        scores=scores,
        headline=SHOWN,
        best_by="pa_mpvpe_mm",
        constant_guess=("mean_hand", functools.partial(errors_of_mean_hand, hand=hand)),
    )


def _landmarks(config: Config, drawn: bool) -> Task:
    network = create_pretraining(config, drawn=drawn)
    sigma_cells = config.loss.heatmap_sigma_cells
    return Task(
        network=network,
        terms_of=functools.partial(losses.two_view_terms_2d, sigma_cells=sigma_cells),
        from_epoch={},
        answer_step=make_landmark_step(network.eval_graphdef, network.image_size),
        errors_of=landmark_errors_px,
        scores=landmark_scores,
        headline={
            "landmark_error_px": "mean error px",
            "landmark_median_px": "median error px",
            "pck_5px": "PCK@5px",
        },
        best_by="landmark_error_px",
        constant_guess=("mean_landmarks", errors_of_mean_landmarks),
    )
