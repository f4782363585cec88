"""Where arrays live: the one place that knows about devices.

All is data-parallel over one axis. Parameters are on every device, batches are cut along b;
BatchNorm then sees the whole batch, as the program is that of one device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from m3dhmr_jax.types import Batch

AXIS = "data"


def check_microbatches(batch_size: int, parts: int) -> None:
    """Raises ValueError if a batch cannot be cut into `parts` that the devices share evenly."""
    if parts < 1 or batch_size % (parts * jax.device_count()):
        raise ValueError(
            f"optim.accumulate_steps={parts} must be at least 1, and batch_size={batch_size} a "
            f"multiple of it times {jax.device_count()}, the number of devices: each takes the "
            "same number of examples of each part"
        )


def device_mesh() -> Mesh:
    """All devices in one row, those of a process side by side, as are its rows of a batch."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def connect() -> None:
    """Opens the connections between all devices, while all processes are here.

    Gloo gives up if one comes 30 s late for the first time, be it that it compiles for longer.
    """
    mesh = device_mesh()
    ones = np.ones(jax.local_device_count())
    rows = jax.make_array_from_process_local_data(batch_sharding(mesh), ones)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated(mesh))(rows))
    multihost_utils.sync_global_devices("connect")  # The same between the processes.


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_divides(batch_size: int, name: str) -> None:
    """Raises ValueError if the devices cannot share a batch evenly."""
    if batch_size < 1 or batch_size % jax.device_count():
        several = f" of all {jax.process_count()} processes" if jax.process_count() > 1 else ""
        raise ValueError(
            f"{name}={batch_size} must be a positive multiple of {jax.device_count()}, the number "
            f"of devices{several}: each takes the same number of examples"
        )


def jit_step(step: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """A step (state, batch, key) over all devices; its first argument is consumed."""
    everywhere = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(everywhere, batch_sharding(mesh), everywhere),
        out_shardings=everywhere,
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts the first process's arrays on every device of every process."""
    place = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, place, lambda index: x[index]),
        multihost_utils.broadcast_one_to_all(tree),
    )


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """What `replicate` would give, without arrays: where those that are read shall go."""
    place = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def shard(batch: Batch, mesh: Mesh) -> Batch:
    """Hands each device its rows; every process passes its own part of the batch."""
    place = batch_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(place, x) for x in batch))


def data_parallel(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Jits `function(batch, *weights)`, whose answer to an example does not look at others.

    The batch is a sharded one, the weights are replicated. Each device answers for its rows.
    """
    rows, everywhere = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.jit(
        jax.shard_map(
            lambda batch, weights: function(batch, *weights),
            mesh=mesh,
            in_specs=(rows, everywhere),
            out_specs=rows,
            check_vma=False,  # There is no sum over devices that could be forgotten.
        )
    )
    return lambda batch, *weights: mapped(batch, weights)


def gather_to_host(tree: Any) -> Any:
    """Sharded arrays as whole ones, on the host of every process."""
    return multihost_utils.process_allgather(tree, tiled=True)
