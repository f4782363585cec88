"""Trains one decoder on the features of a frozen image side, resumably and bit by bit alike.

Everything is a function of system, seed and settings: the order of the images, the initial
parameters, and so every step. A run saves its state CURVE_POINTS times, where it is also scored.
Axes: i images, k crops of an image, b crops of a step, n joints, v vertices.
"""

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Key

from benchmarks.accuracy import shuffled_batches
from benchmarks.decoders.features import Examples, Features
from benchmarks.decoders.systems import (
    PAPER,
    Channels,
    Surroundings,
    System,
    channels_of,
)
from m3dhmr_jax import losses
from m3dhmr_jax.checkpoints.weights import load_matching, load_weights, save_weights
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.metrics.freihand import aligned_and_centred, distances
from m3dhmr_jax.training import optim
from m3dhmr_jax.types import MESH_UNIT_M

CURVE_POINTS = 12
CURVE_STRIDE = 4  # The curve is that of every fourth test image; the final score of all.
SCORED_AT_ONCE = 50


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all systems of a comparison share.

    Raises:
        UserError: if there are fewer steps than points of the curve.
    """

    channels: Channels  # Of the full model.
    steps: int
    batch_size: int  # Images; each has two crops.
    learning_rate: float
    features: str  # The manifest's weights.

    def __post_init__(self):
        if self.steps < CURVE_POINTS:
            raise UserError(
                f"--steps={self.steps} must be at least {CURVE_POINTS}: a run is scored and saved "
                "so many times"
            )


class RunState(NamedTuple):
    params: Any
    opt_state: Any
    ema_params: Any  # None for systems without.


class Program(NamedTuple):
    """A system's compiled functions; the same for all seeds."""

    channels: Channels
    init: Callable[[Any], RunState]  # From a key.
    step: Callable[[RunState, Examples], RunState]
    # Aligned errors of joints and of vertices in mm, a mean for each crop.
    errors: Callable[[RunState, Examples], tuple[Array, Array]]


def create_program(system: System, settings: Settings, around: Surroundings) -> Program:
    channels = channels_of(system, settings.channels, around)
    optimizer = create_optimizer(system, settings)

    def create(key: Key[Array, ""]) -> nnx.Module:
        return system.create(around, channels, nnx.Rngs(key))

    graphdef, _ = nnx.split(nnx.eval_shape(create, jax.random.key(0)), nnx.Param)

    def init(key: Key[Array, ""]) -> RunState:
        params = nnx.to_pure_dict(nnx.state(create(key), nnx.Param))
        ema_params = jax.tree.map(jnp.copy, params) if system.ema_decay else None
        return RunState(params, optimizer.init(params), ema_params)

    def decode(params: Any, features: Features) -> Float[Array, "b v 3"]:
        return nnx.merge(graphdef, params)(features)

    def loss(params: Any, pairs: Examples) -> Float[Array, ""]:
        both = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)
        verts = decode(params, both.features)
        terms = loss_terms(verts, both.verts, pairs.angle_rad, around.hand)
        return losses.total(
            {name: terms[name] for name in system.loss_weights}, system.loss_weights
        )

    def step(state: RunState, pairs: Examples) -> RunState:
        grads = jax.grad(loss)(state.params, _in_float32(pairs))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = state.ema_params
        if ema_params is not None:
            ema_params = optim.update_ema(ema_params, params, system.ema_decay)
        return RunState(params, opt_state, ema_params)

    def errors(state: RunState, crops: Examples) -> tuple[Array, Array]:
        params = state.params if state.ema_params is None else state.ema_params
        crops = _in_float32(crops)
        return aligned_errors_mm(decode(params, crops.features), crops.verts, around.hand)

    return Program(channels, jax.jit(init), jax.jit(step, donate_argnums=0), jax.jit(errors))


def _in_float32(examples: Examples) -> Examples:
    return jax.tree.map(lambda x: x.astype(jnp.float32), examples)


def create_optimizer(system: System, settings: Settings) -> optax.GradientTransformation:
    """Adam as in the paper, which divides the learning rate by 10 late in a run, or a cosine."""
    peak, steps = settings.learning_rate, settings.steps
    if system.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(peak, steps)
    else:
        drops = [epoch / PAPER.epochs for epoch in PAPER.optim.lr_decay_epochs]
        schedule = optim.lr_schedule(peak, steps, 0.0, drops, PAPER.optim.lr_decay_factor)
    return optim.adam(schedule, PAPER.optim.clip_norm)


def loss_terms(
    verts: Float[Array, "b v 3"],
    true: Float[Array, "b v 3"],
    angle_rad: Float[Array, "i 2"],
    hand: HandModel,
) -> dict[str, Float[Array, ""]]:
    """The terms of eq. 7 that reach a decoder, and `joints`; rows alternate between two views."""
    valid = np.ones((1, 1, 1), bool)
    pairs = verts.reshape(-1, 2, *verts.shape[1:])
    rotation_rad = angle_rad[:, 1] - angle_rad[:, 0]
    joints, true_joints = (joints_of(each, hand) for each in (verts, true))
    errors = {
        "mesh": losses.l1_errors(verts, true),
        "joints": losses.l1_errors(joints, true_joints),
        "normal": losses.normal_errors(verts, true, hand.faces),
        "edge": losses.edge_errors(verts, true, hand.faces),
        "con3d": losses.con3d_errors(pairs[:, 0], pairs[:, 1], rotation_rad),
    }
    return {name: losses.mean_over(each, valid) for name, each in errors.items()}


def joints_of(verts: Float[Array, "b v 3"], hand: HandModel) -> Float[Array, "b n 3"]:
    return jnp.einsum("nv,bvc->bnc", hand.joint_regressor, verts, precision="highest")


def aligned_errors_mm(
    verts: Float[Array, "b v 3"], true: Float[Array, "b v 3"], hand: HandModel
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Mean errors of each hand's joints and vertices after similarity alignment."""

    def mean_mm(points: Float[Array, "n 3"], true: Float[Array, "n 3"]) -> Float[Array, ""]:
        return 1000 * MESH_UNIT_M * jnp.mean(distances(*aligned_and_centred(points, true)))

    joints = jax.vmap(mean_mm)(joints_of(verts, hand), joints_of(true, hand))
    return joints, jax.vmap(mean_mm)(verts, true)


class Scores(NamedTuple):
    pa_mpjpe_mm: float
    pa_mpvpe_mm: float


def score(program: Program, state: RunState, test: Examples, stride: int = 1) -> Scores:
    """Mean errors over every `stride`-th test image."""
    crops = jax.tree.map(lambda x: x[::stride, 0], test)
    n = len(crops.verts)
    parts = [
        program.errors(state, jax.tree.map(lambda x, i=i: x[i : i + SCORED_AT_ONCE], crops))
        for i in range(0, n, SCORED_AT_ONCE)
    ]
    joints, verts = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Scores(float(joints.mean(dtype=np.float64)), float(verts.mean(dtype=np.float64)))


def settings_id(system: System, seed: int, settings: Settings) -> dict[str, Any]:
    """What a run's line of JSON and its saved state are recognised by."""
    content = {"system": system.name, "seed": seed} | dataclasses.asdict(settings)
    return json.loads(json.dumps(content))


def state_file(folder: Path, run: Mapping[str, Any]) -> Path:
    """Where a run keeps its state until it has finished."""
    name = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
    return folder / f"{name}.safetensors"


class Progress(NamedTuple):
    step: int
    cpu_s: float
    curve: list[list[float]]  # Of [step, PA-MPJPE mm, PA-MPVPE mm].


def train(
    system: System,
    seed: int,
    settings: Settings,
    program: Program,
    training: Examples,
    test: Examples,
    file: Path,
    until: int | None = None,
) -> tuple[RunState, Progress]:
    """Trains to the end, or to step `until`, resuming from `file`, which it keeps up to date.

    Raises:
        UserError: if there are fewer images than one batch has, or parameters become NaN.
    """
    n = len(training.verts)
    if n < settings.batch_size:
        raise UserError(f"--batch_size={settings.batch_size} must be at most {n}, all images")
    state, progress = _restore(file, program.init(jax.random.key(seed)))
    stops = np.linspace(0, settings.steps, CURVE_POINTS + 1).round().astype(int)[1:].tolist()
    orders = shuffled_batches(n, settings.batch_size, seed)
    batches = itertools.islice(orders, progress.step, until or settings.steps)
    start_s = time.process_time() - progress.cpu_s
    for step, rows in enumerate(batches, progress.step + 1):
        state = program.step(state, jax.tree.map(lambda x, rows=rows: x[rows], training))
        if step in stops:
            jax.block_until_ready(state)
            curve = [*progress.curve, [step, *score(program, state, test, CURVE_STRIDE)]]
            progress = Progress(step, time.process_time() - start_s, curve)
            metadata = {name: json.dumps(value) for name, value in progress._asdict().items()}
            save_weights(file, state, {}, metadata)
    return state, progress


def _restore(file: Path, state: RunState) -> tuple[RunState, Progress]:
    if not file.is_file():
        return state, Progress(0, 0.0, [])
    found = load_weights(file)
    state, _ = load_matching(state, found.params)
    return state, Progress(**{name: json.loads(text) for name, text in found.metadata.items()})
