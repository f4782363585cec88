"""Placement of arrays on devices.

Training is data-parallel over one mesh axis: parameters are replicated, batches are sharded along
b. XLA partitions the single-device program, so BatchNorm sees the full batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import Batch

AXIS = "data"


def check_microbatches(batch_size: int, accumulate_steps: int) -> None:
    """Raises UserError if a batch cannot be split into microbatches of equal size per device."""
    if accumulate_steps < 1 or batch_size % (accumulate_steps * jax.device_count()):
        raise UserError(
            f"optim.accumulate_steps={accumulate_steps} must be at least 1, and "
            f"batch_size={batch_size} a multiple of it times {jax.device_count()}, the number of "
            "devices: each device takes the same number of examples of each microbatch"
        )


def device_mesh() -> Mesh:
    """All devices along one axis; a process's devices, and so its rows of a batch, are adjacent."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def connect() -> None:
    """Opens the connections between all devices, while all processes are at the same point.

    Gloo fails if a process joins the first collective 30 s after the others, for example because
    it compiles for longer.
    """
    mesh = device_mesh()
    ones = np.ones(jax.local_device_count())
    rows = jax.make_array_from_process_local_data(batch_sharding(mesh), ones)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated(mesh))(rows))
    multihost_utils.sync_global_devices("connect")  # And those between the processes.


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_divides(batch_size: int, name: str) -> None:
    """Raises UserError if a batch cannot be split evenly over the devices."""
    if batch_size < 1 or batch_size % jax.device_count():
        several = f" of all {jax.process_count()} processes" if jax.process_count() > 1 else ""
        raise UserError(
            f"{name}={batch_size} must be a positive multiple of {jax.device_count()}, the number "
            f"of devices{several}: each takes the same number of examples"
        )


def jit_step(step: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """Jits a step (state, batch, key) over all devices; the state is donated."""
    replicas = replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(replicas, batch_sharding(mesh), replicas),
        out_shardings=replicas,
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts the arrays of process 0 on every device of every process."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]),
        multihost_utils.broadcast_one_to_all(tree),
    )


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of `replicate(tree, mesh)`, as restoring takes them."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def shard(batch: Batch, mesh: Mesh) -> Batch:
    """Shards a batch over the devices; each process passes its own part of it."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def data_parallel(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Jits `function(batch, *weights)`, which must treat examples independently.

    The batch is sharded, the weights are replicated; each device computes its rows.
    """
    rows, replicas = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.jit(
        jax.shard_map(
            lambda batch, weights: function(batch, *weights),
            mesh=mesh,
            in_specs=(rows, replicas),
            out_specs=rows,
            check_vma=False,  # There is no reduction over devices to check.
        )
    )
    return lambda batch, *weights: mapped(batch, weights)


def gather_to_host(tree: Any) -> Any:
    """Sharded arrays as complete host arrays, in every process."""
    return multihost_utils.process_allgather(tree, tiled=True)
