"""Where arrays live: the one place that knows about devices.

Training is data-parallel over one axis. Parameters are on every device, batches are cut along b;
BatchNorm then sees the whole batch, as the program is that of one device.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from m3dhmr_jax.types import Batch

AXIS = "data"


def device_mesh() -> Mesh:
    """All devices of all processes in one row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_divides(batch_size: int, name: str) -> None:
    """Raises ValueError if the devices cannot share a batch evenly."""
    if batch_size < 1 or batch_size % jax.device_count():
        raise ValueError(
            f"{name}={batch_size} must be a positive multiple of {jax.device_count()}, the number "
            "of devices: each takes the same number of examples"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts the same arrays on every device of every process."""
    place = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, place, lambda index: x[index]), tree
    )


def shard(batch: Batch, mesh: Mesh) -> Batch:
    """Hands each device its rows; every process passes its own part of the batch."""
    place = by_example(mesh)
    return Batch(*(jax.make_array_from_process_local_data(place, x) for x in batch))
