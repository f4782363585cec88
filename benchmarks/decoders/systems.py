"""The decoders that are compared: those of the paper's tables 1 to 3, and changes of the full one.

Every change stands alone. Heatmap supervision is not among them: it trains the image side, which
is frozen here; nor are losses of landmarks, which no decoder predicts.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.decoders.features import Features
from benchmarks.decoders.modules import (
    AttentionDecoder,
    RefinedDecoder,
    SampledDecoder,
    TokenDecoder,
)
from benchmarks.systems import Size, multiply_adds
from configs import resnet18
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.mesh.hierarchy import MeshHierarchy
from m3dhmr_jax.models.decoder import MeshDecoder
from m3dhmr_jax.types import N_JOINTS, N_VERTICES, Config

Channels = tuple[int, ...]
# Parameters grow with the widths, and less than with their square: each scaling halves what is left
# to the goal, or better.
SCALINGS = 4
PAPER: Config = resnet18.get_config()
PAPER_CHANNELS: Channels = tuple(PAPER.model.channels)
# Of the terms that reach a decoder.
PAPER_WEIGHTS: Mapping[str, float] = {
    name: PAPER.loss.weights[name] for name in ("mesh", "normal", "edge", "con3d")
}


class Surroundings(NamedTuple):
    """What every decoder is built between: the maps that it reads and the mesh that it answers."""

    encoding: int  # Channels of F^e.
    finest: int  # Channels of the finest map.
    hand: HandModel
    hierarchy: MeshHierarchy


Create = Callable[[Surroundings, Channels, nnx.Rngs], nnx.Module]


@dataclasses.dataclass(frozen=True)
class System:
    """A decoder and how it is trained."""

    name: str
    group: str
    create: Create
    # Whether its channels are scaled until it has as many parameters as the full model.
    equal_parameters: bool = False
    loss_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: PAPER_WEIGHTS)
    schedule: str = "step"  # Or "cosine".
    ema_decay: float = 0.0  # Above 0 it is scored with the EMA of its parameters.


def _paper(operator: str, kernels: int = 1, roi: bool = True, finest: bool = False) -> Create:
    """The paper's decoder, with or without the finest map."""

    def create(around: Surroundings, channels: Channels, rngs: nnx.Rngs) -> nnx.Module:
        encoding = around.encoding + (around.finest if finest else 0)
        options = {"operator": operator, "kernels": kernels, "roi": roi}
        decoder = MeshDecoder(N_JOINTS, encoding, channels, around.hierarchy, **options, rngs=rngs)
        return SampledDecoder(decoder, finest)

    return create


def _attention(around: Surroundings, channels: Channels, rngs: nnx.Rngs) -> nnx.Module:
    return SampledDecoder(
        AttentionDecoder(N_JOINTS, around.encoding, channels, around.hierarchy, rngs=rngs)
    )


def _refined(around: Surroundings, channels: Channels, rngs: nnx.Rngs) -> nnx.Module:
    decoder = MeshDecoder(N_JOINTS, around.encoding, channels, around.hierarchy, rngs=rngs)
    return RefinedDecoder(decoder, channels[-1], around.finest, around.hand, rngs)


def _tokens(around: Surroundings, channels: Channels, rngs: nnx.Rngs) -> nnx.Module:
    return SampledDecoder(TokenDecoder(N_JOINTS, around.encoding, channels, N_VERTICES, rngs))


FULL = System("dsc, K=8, ROI", "tables", _paper("dsc", 8))
TABLES = (
    FULL,
    System("dsc, K=8", "tables", _paper("dsc", 8, roi=False)),
    System("spiral, ROI", "tables", _paper("spiral")),
    System("spiral", "tables", _paper("spiral", roi=False)),
    System("dsconv, ROI", "tables", _paper("dsconv")),
    System("dsconv", "tables", _paper("dsconv", roi=False)),
    *(System(f"dsc, K={k}, ROI", "tables", _paper("dsc", k)) for k in (2, 4, 16)),
)
EQUAL = tuple(
    dataclasses.replace(system, name=f"{system.name}, equal", group="equal", equal_parameters=True)
    for system in TABLES
    if system is not FULL
)
CHANGES = (
    System("refined", "changes", _refined),
    System("finest map", "changes", _paper("dsc", 8, finest=True)),
    System("21-84-336-778", "changes", _tokens),
    System("attention lift", "changes", _attention),
    System(
        "joint term, 10/10",
        "changes",
        FULL.create,
        loss_weights=PAPER_WEIGHTS | {"mesh": 10.0, "joints": 10.0},
    ),
    System("cosine", "changes", FULL.create, schedule="cosine"),
    System("EMA", "changes", FULL.create, ema_decay=0.999),
)
SYSTEMS = {system.name: system for system in (*TABLES, *EQUAL, *CHANGES)}
GROUPS = ("tables", "equal", "changes")


def channels_of(system: System, channels: Channels, around: Surroundings) -> Channels:
    """The widths of a system where the full model has `channels`.

    Those of equal parameters are scaled by one factor, to the nearest whole numbers.
    """
    if not system.equal_parameters:
        return channels
    goal, factor, scaled = _parameters(FULL, channels, around), 1.0, channels
    for _ in range(SCALINGS):
        factor *= math.sqrt(goal / _parameters(system, scaled, around))
        scaled = tuple(max(round(factor * c), 2) for c in channels)
    return scaled


def _abstract(system: System, channels: Channels, around: Surroundings) -> nnx.Module:
    return nnx.eval_shape(lambda: system.create(around, channels, nnx.Rngs(0)))


def _parameters(system: System, channels: Channels, around: Surroundings) -> int:
    params = nnx.state(_abstract(system, channels, around), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def size_of(system: System, channels: Channels, around: Surroundings, crop: Features) -> Size:
    """Parameters, and multiply-adds of one hand, without initialising; `crop` is one of a batch."""
    graphdef, params = nnx.split(_abstract(system, channels, around))
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32), crop)
    program = jax.make_jaxpr(functools.partial(_decode, graphdef))(params, one)
    return Size(_parameters(system, channels, around), multiply_adds(program.jaxpr))


def _decode(graphdef: nnx.GraphDef, params: nnx.State, features: Features) -> jax.Array:
    return nnx.merge(graphdef, params)(features)
