"""Whether an exported network computes the same as JAX: on 64 drawn hands, whatever its format.

Axes: b batch, s crop side, n = 21 joints or landmarks, v vertices.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.trained import Trained
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import predict_crops
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import MESH_UNIT_M, ROOT
from m3dhmr_jax.visualize.mesh import render_mesh

BATCHES = (1, 3, 60)
# Largest differences from JAX: of rounding, and of weights that are stored as float16.
BOUND_M, BOUND_PX = 1e-5, 0.05
HALF_BOUND_M, HALF_BOUND_PX = 5e-4, 0.5
JAX_BATCH = 8
# The drawn hands: their distance, the camera's focal length in sides of the crop, their colour.
DISTANCE_M, FOCAL, SKIN = 0.6, 1.8, (0.85, 0.65, 0.55)


class CropOutputs(NamedTuple):
    """What every exported network computes for crops of right hands."""

    # In the axes of the crop's camera.
    vertices_m: Float[np.ndarray, "b v 3"]
    joints_m: Float[np.ndarray, "b n 3"]
    # Pixels of the crop.
    landmarks_px: Float[np.ndarray, "b n 2"]


# Crops are RGB; any batch size.
RunCrops = Callable[[UInt8[np.ndarray, "b s s 3"]], CropOutputs]


class Difference(NamedTuple):
    """The largest difference from JAX over all hands; NaN if one of them is not a number."""

    metres: float
    pixels: float


@contextlib.contextmanager
def write_checked(
    out: Path, trained: Trained, load: Callable[[Path], RunCrops], *, half: bool
) -> Iterator[Path]:
    """Yields a path to write a network to, which becomes `out` if it then computes what JAX does.

    Raises:
        UserError: if it does not; nothing is left then.
        DiskFullError: if the disk is full.
    """
    with write_atomic(out) as partial:
        yield partial
        found = difference_from_jax(load(partial), trained)
        bound_m, bound_px = (HALF_BOUND_M, HALF_BOUND_PX) if half else (BOUND_M, BOUND_PX)
        told = f"at most {found.metres:.2g} m and {found.pixels:.2g} px from JAX"
        # Not the other way round: NaN is neither.
        if not (found.metres <= bound_m and found.pixels <= bound_px):
            raise UserError(
                f"{out} is removed: on {sum(BATCHES)} drawn hands {told}, but the limits are "
                f"{bound_m:g} m and {bound_px:g} px: what was written computes something else; "
                "try other versions of the packages that wrote and ran it, and report it"
            )
        print(f"{out}: on {sum(BATCHES)} drawn hands {told}")


@single_precision()
def difference_from_jax(run: RunCrops, trained: Trained) -> Difference:
    """Runs an exported network beside JAX, on batches of every size in BATCHES.

    Hands are compared about their wrists, as root recovery moves these anyway.
    """
    crops = drawn_hands(trained.hand, random_rotations(sum(BATCHES)), trained.network.image_size)
    found = [run(part) for part in np.split(crops, np.cumsum(BATCHES)[:-1])]
    outputs = CropOutputs(*(np.concatenate(each) for each in zip(*found, strict=True)))
    pairs = zip(about_wrist(outputs), about_wrist(run_jax(trained, crops)), strict=True)
    vertices_m, joints_m, landmarks_px = (float(np.abs(got - want).max()) for got, want in pairs)
    return Difference(float(np.maximum(vertices_m, joints_m)), landmarks_px)


def about_wrist(outputs: CropOutputs) -> CropOutputs:
    """The hands relative to their wrists."""
    wrist_m = outputs.joints_m[:, ROOT, None]
    return outputs._replace(
        vertices_m=outputs.vertices_m - wrist_m, joints_m=outputs.joints_m - wrist_m
    )


def run_jax(trained: Trained, crops: UInt8[np.ndarray, "b s s 3"]) -> CropOutputs:
    """What an export has to compute."""
    network = trained.network
    graph, arrays = network.eval_graphdef, (network.params, network.stats)
    parts = [
        predict_outputs(graph, *arrays, crops[i : i + JAX_BATCH], trained.hand.joint_regressor)
        for i in range(0, len(crops), JAX_BATCH)
    ]
    vertices_m, joints_m, landmarks_01 = (np.concatenate(x) for x in zip(*parts, strict=True))
    return CropOutputs(vertices_m, joints_m, landmarks_01 * np.float32(network.image_size))


@functools.partial(jax.jit, static_argnums=0)
def predict_outputs(
    eval_graphdef: Any,
    params: Any,
    stats: Any,
    crops: UInt8[Array, "b s s 3"],
    joint_regressor: Float[Array, "n v"],
) -> tuple[Array, ...]:
    """Vertices and joints in metres, and landmarks as a fraction of the crop, in full precision."""
    with jax.default_matmul_precision("highest"):
        verts, landmarks_01 = predict_crops(eval_graphdef, params, stats, crops)
        vertices_m = jnp.asarray(verts) * MESH_UNIT_M
        joints_m = jnp.einsum("nv,bvc->bnc", joint_regressor, vertices_m)
    return vertices_m, joints_m, jnp.asarray(landmarks_01)


def random_rotations(n: int) -> Float[np.ndarray, "n 3 3"]:
    rotations, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 3, 3)))
    rotations[:, 0] *= np.linalg.det(rotations)[:, None]  # No reflections.
    return rotations


def drawn_hands(
    hand: HandModel, rotations: Float[np.ndarray, "b 3 3"], side: int
) -> UInt8[np.ndarray, "b s s 3"]:
    """Crops of the hand, each turned by a rotation, in front of smooth colours."""
    intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1 / side]]) * side
    colours = np.tile(SKIN, (len(hand.faces), 1))
    centred_m = hand.verts_m - hand.verts_m.mean(axis=0)
    y, x = np.mgrid[:side, :side] / side
    crops = []
    for i, rotation in enumerate(rotations):
        waves = [np.sin(5 * x + i), np.cos(4 * y - i), np.sin(6 * x * y + i)]
        background = np.round(127 + 80 * np.stack(waves, axis=-1)).astype(np.uint8)
        verts_m = centred_m @ rotation.T + np.array([0, 0, DISTANCE_M])
        drawn = render_mesh(verts_m, hand.faces, intrinsics, side, side, colours)
        crops.append(drawn.over(background))
    return np.stack(crops)
