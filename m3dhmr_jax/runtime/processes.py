"""Several processes of one run: how they find each other, wait for each other and end together.

One process is the default, and then nothing here does anything. All run the same program with the
same config; what exists once (config, events, scores, pictures) is written by the first one, and
checkpoints by all of them together. A process that fails or falls silent takes the others with it.
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

from m3dhmr_jax.runtime import sharding

Asked = ParamSpec("Asked")
Made = TypeVar("Made")

PATIENCE_S = 100  # After which a process that is silent, or does not end with the others, is dead.
LONGEST_WAIT_S = 7 * 24 * 3600  # For what one process makes; its heartbeat says that it still does.
# How many were started, said by launchers that jax does not read.
COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def initialize(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins this process to the others; must come before the first look at a device.

    Args:
        coordinator: host:port of the first process. Without these three jax asks SLURM, Open MPI
            or the TPU's metadata; where none of them knows of several, the process stays alone.

    Raises:
        ValueError: if only some of the three are given or do not fit together, if processes were
            started that do not know of each other, or have different numbers of devices.
    """
    given = {"--coordinator": coordinator, "--processes": count, "--process": index}
    missing = [flag for flag, value in given.items() if value is None]
    if coordinator is not None and count is not None and index is not None:
        _check(coordinator, count, index)
        _initialize(coordinator, count, index, cluster_detection_method="deactivate")
    elif len(missing) < len(given):
        raise ValueError(f"{' and '.join(missing)} missing: {', '.join(given)} belong together")
    else:
        try:
            _initialize(local_device_ids=[] if _one_per_node() else None)
        except ValueError as error:  # jax found no cluster.
            _refuse_strangers(error)
            return
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise ValueError(
            f"process {jax.process_index()} has {jax.local_device_count()} of {jax.device_count()} "
            f"devices, but each of the {jax.process_count()} processes must have as many"
        )
    barrier("initialize")
    sharding.connect()
    if not is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  The first one speaks for all.


def _initialize(*place: str | int, **options: object) -> None:
    jax.distributed.initialize(
        *place,  # pyright: ignore[reportArgumentType]
        **options,  # pyright: ignore[reportArgumentType]
        heartbeat_timeout_seconds=PATIENCE_S,
        shutdown_timeout_seconds=PATIENCE_S,
    )


def _check(coordinator: str, count: int, index: int) -> None:
    if not re.fullmatch(r".+:\d+", coordinator):
        raise ValueError(f"--coordinator={coordinator} must be host:port of the first process")
    if not 0 <= index < count:
        raise ValueError(
            f"--process={index} must be 0 to {count - 1}: one number for each of the "
            f"--processes={count}"
        )


def _one_per_node() -> bool:
    """Whether each node runs one process, which takes all its devices: jax would take the first."""
    local = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", local)  # Such as 8(x3),4.
    return set(re.findall(r"(\d+)(?:\(x\d+\))?", tasks)) == {"1"}


def _refuse_strangers(error: ValueError) -> None:
    for name in COUNTS:
        if int(os.environ.get(name, 1)) > 1:
            raise ValueError(
                f"{os.environ[name]} processes were started ({name}), but jax cannot tell where "
                "the first one is: name it with --coordinator, --processes and --process"
            ) from error


def is_primary() -> bool:
    """Whether this process writes what there is once."""
    return jax.process_index() == 0


def process_shard() -> dict[str, Any]:
    """Which part of each batch this process loads, as `data.pipeline` takes it."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def barrier(why: str) -> None:
    """Returns when every process has come here."""
    barrier = ocp.multihost.get_barrier_sync_fn()
    barrier(key=f"m3dhmr_jax {why}", timeout_ms=1000 * LONGEST_WAIT_S)


def any_process(here: bool) -> bool:
    """Whether it is so in any process; all must ask."""
    return bool(multihost_utils.process_allgather(np.array(here)).any())


def once_per_host(make: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """Decorates what makes files on first use and finds them later; all processes must call it.

    It runs in the first process, then in the first of each host, then in the others: files are
    made once where hosts share them, and once per host where they do not.
    """

    @functools.wraps(make)
    def made(*args: Asked.args, **kwargs: Asked.kwargs) -> Made:
        own, found = _turn(), []
        for now in range(3):
            if now == own:
                found.append(make(*args, **kwargs))
            barrier(f"{make.__name__} {now}")
        return found[0]

    return made


def _turn() -> int:
    host = np.uint32(zlib.crc32(socket.gethostname().encode()))
    hosts = multihost_utils.process_allgather(host).ravel()
    first_of_host = int(np.flatnonzero(hosts == host)[0])
    return 0 if is_primary() else 1 if first_of_host == jax.process_index() else 2
