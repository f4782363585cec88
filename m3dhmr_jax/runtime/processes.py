"""Several processes of one run: discovery, barriers and a common end.

The default is one process, and then nothing here has an effect. All run the same program with the
same config. Process 0 logs and writes config, events, scores and drawings; checkpoints are written
collectively. If a process fails or misses its heartbeat, all of them exit.
"""

import functools
import os
import re
import socket
import sys
import zlib
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import sharding

Params = ParamSpec("Params")
Result = TypeVar("Result")

HEARTBEAT_TIMEOUT_S = 100
# For work that one process does for all, such as preparing the data; heartbeats continue.
BARRIER_TIMEOUT_S = 7 * 24 * 3600
# The number of processes, from launchers that JAX does not support.
COUNT_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def initialize(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Connects this process to the others; call it before the first use of a device.

    Args:
        coordinator: host:port of process 0. Default of all three: from SLURM, Open MPI or TPU
            metadata; without any of these the process runs alone.
        count: number of processes.
        index: number of this process, from 0.

    Raises:
        UserError: if only some of the three are given or they do not fit together, if several
            processes were started that cannot find each other, or if their numbers of devices
            differ.
    """
    given = {"--coordinator": coordinator, "--processes": count, "--process": index}
    missing = [flag for flag, value in given.items() if value is None]
    if coordinator is not None and count is not None and index is not None:
        _check(coordinator, count, index)
        _initialize(coordinator, count, index, cluster_detection_method="deactivate")
    elif len(missing) < len(given):
        raise UserError(f"{' and '.join(missing)} missing: {', '.join(given)} belong together")
    else:
        _check_slurm()
        try:
            _initialize(local_device_ids=[] if _one_per_node() else None)
        except ValueError as error:  # JAX has not found a cluster.
            _check_launcher(error)
            return
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise UserError(
            f"process {jax.process_index()} has {jax.local_device_count()} of {jax.device_count()} "
            f"devices, but all {jax.process_count()} processes must have the same number"
        )
    barrier("initialize")
    sharding.connect()
    if not is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  Process 0 logs.


def _initialize(*address: str | int, **options: object) -> None:
    jax.distributed.initialize(
        *address,  # pyright: ignore[reportArgumentType]
        **options,  # pyright: ignore[reportArgumentType]
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        shutdown_timeout_seconds=HEARTBEAT_TIMEOUT_S,
    )


def _check(coordinator: str, count: int, index: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator} must be host:port of process 0")
    if not 0 <= index < count:
        raise UserError(
            f"--process={index} must be 0 to {count - 1}: each of the --processes={count} has its "
            "own number"
        )


def _one_per_node() -> bool:
    """Whether each node runs one process, which then uses all devices: JAX would use the first."""
    local = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", local)  # E.g. 8(x3),4.
    return set(re.findall(r"(\d+)(?:\(x\d+\))?", tasks)) == {"1"}


def _check_slurm() -> None:
    """Raises UserError in an allocation for several tasks, none of which srun has started.

    JAX would wait for the others. A shell inside of an allocation has its number of tasks, or only
    of nodes; srun sets both numbers to those that it starts.
    """
    tasks = os.environ.get("SLURM_NTASKS", os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    started = os.environ.get("SLURM_STEP_NUM_TASKS", "none")
    if tasks not in ("1", started):
        raise UserError(
            f"SLURM has allocated {tasks} tasks (SLURM_NTASKS or SLURM_JOB_NUM_NODES), but srun "
            f"has started {started} of them (SLURM_STEP_NUM_TASKS): start the program with srun, "
            "or with srun --ntasks=1 to run one process alone"
        )


def _check_launcher(error: ValueError) -> None:
    """Raises UserError if a launcher started several processes that JAX cannot connect."""
    for name in COUNT_VARIABLES:
        if int(os.environ.get(name, 1)) > 1:
            raise UserError(
                f"{os.environ[name]} processes were started ({name}), but JAX cannot find "
                "process 0: set --coordinator, --processes and --process"
            ) from error


def is_primary() -> bool:
    """Whether this is process 0, which logs and writes files."""
    return jax.process_index() == 0


def process_shard() -> dict[str, Any]:
    """Which part of each batch this process loads: keyword arguments of `data.loader`."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def barrier(name: str) -> None:
    """Returns when every process has reached it."""
    sync = ocp.multihost.get_barrier_sync_fn()
    sync(key=f"m3dhmr_jax {name}", timeout_ms=1000 * BARRIER_TIMEOUT_S)


def any_process(here: bool) -> bool:
    """Whether `here` is true in any process; all must call this."""
    return bool(multihost_utils.process_allgather(np.array(here)).any())


def once_per_host(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Decorates a function that creates files, or finds those that exist; all processes call it.

    It runs in process 0, then in the first process of each other host, then in the rest: files are
    created once on a shared disk, and once per host on local disks.
    """

    @functools.wraps(function)
    def in_turn(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        own, results = _turn(), []
        for turn in range(3):
            if turn == own:
                results.append(function(*args, **kwargs))
            barrier(f"{function.__name__} {turn}")
        return results[0]

    return in_turn


def _turn() -> int:
    host = np.uint32(zlib.crc32(socket.gethostname().encode()))
    hosts = multihost_utils.process_allgather(host).ravel()
    first_of_host = int(np.flatnonzero(hosts == host)[0])
    return 0 if is_primary() else 1 if first_of_host == jax.process_index() else 2
