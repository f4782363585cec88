import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import processes

TWO_PROCESSES = """
import json, socket, sys
from pathlib import Path
import numpy as np
from m3dhmr_jax.data import loader
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate.scoring import gather
from m3dhmr_jax.runtime import processes, sharding

index, dataset_dir, folder = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
processes.initialize(None, None, None)
shard, mesh, found = processes.process_shard(), sharding.device_mesh(), {}

@processes.once_per_host
def creates_once(file):
    created = not file.exists()
    if created:
        with file.open("x"):
            pass
    return created

found["created_shared"] = creates_once(folder / "shared")
socket.gethostname = lambda: f"host{index}"
found["created_on_own_disk"] = creates_once(folder / f"disk_of_{index}")
found["any"] = [processes.any_process(index == 1), processes.any_process(False)]

copy = sharding.replicate({"w": np.full(3, 7 + index, np.float32)}, mesh)
found["replicated"] = np.asarray(copy["w"]).tolist()

batches = loader.train_batches(dataset_dir, 4, 1, start_step=1, **shard)
found["read"] = [next(batches).index.tolist() for _ in range(9)]
for size in (4, 8):
    rows = gather(lambda batch: batch.index, loader.eval_batches(dataset_dir, size, **shard))
    found[f"gathered_{size}"] = rows.tolist()

def index_and_rows(batch, first):
    return batch.index + first + 0 * len(batch.index), 0 * batch.index + len(batch.index)

batch = sharding.shard(next(loader.eval_batches(dataset_dir, 4, **shard)), mesh)
outputs = sharding.data_parallel(index_and_rows, mesh)(batch, np.int32(10))
found["indices"], found["rows"] = (x.tolist() for x in sharding.gather_to_host(outputs))
try:
    sharding.check_divides(6, "batch_size")
except UserError as error:
    found["error"] = str(error)
print("printed once")
(folder / f"{index}.json").write_text(json.dumps(found))
processes.barrier("end")
"""

FAILS = """
import os, signal, sys
from m3dhmr_jax.runtime import processes
processes.HEARTBEAT_TIMEOUT_S = 5
processes.initialize(sys.argv[2], 2, int(sys.argv[1]))
if sys.argv[1] == "1":
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit("Error: only here")
processes.barrier("never reached by both")
"""


def run(code, *arguments, environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def dataset_dir(freihand_folder, tmp_path_factory):
    prepare = pytest.importorskip("tfds_freihand.prepare").prepare
    return prepare(freihand_folder, tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="module")
def together(in_two_processes, dataset_dir, tmp_path_factory):
    """Results and outputs of two processes with two devices each, which SLURM introduces."""
    folder = tmp_path_factory.mktemp("together")

    def start(index, coordinator, environment):
        host, port = coordinator.split(":")
        slurm = {
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": host,
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
            "JAX_COORDINATOR_PORT": port,
        }
        return run(TWO_PROCESSES, index, dataset_dir, folder, environment=environment | slurm)

    results = in_two_processes(start)
    for result in results:
        assert result.returncode == 0, result.stderr
    found = [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]
    return found, [result.stdout for result in results]


@pytest.mark.long
def test_once_per_host_runs_once_per_disk(together):
    found, _ = together
    assert [each["created_shared"] for each in found] == [True, False]
    assert [each["created_on_own_disk"] for each in found] == [True, True]


@pytest.mark.long
def test_any_process_is_known_to_all(together):
    assert [each["any"] for each in together[0]] == [[True, False]] * 2


@pytest.mark.long
def test_replicate_copies_from_process_0(together):
    assert [each["replicated"] for each in together[0]] == [[7, 7, 7]] * 2


@pytest.mark.long
def test_train_batches_cover_epoch_over_processes(together):
    """Ten images; nine batches of four from the second on: the last six and three epochs."""
    first, second = (np.array(each["read"]) for each in together[0])
    assert first.shape == second.shape == (9, 2)
    read = np.concatenate([first, second], axis=1).ravel()[6:]
    np.testing.assert_array_equal(np.sort(read.reshape(3, 10), axis=1), [np.arange(10)] * 3)


@pytest.mark.long
@pytest.mark.parametrize("size", [4, 8])
def test_gather_returns_each_example_once(together, size):
    assert [each[f"gathered_{size}"] for each in together[0]] == [list(range(7))] * 2


@pytest.mark.long
def test_data_parallel_maps_one_row_per_device(together):
    for each in together[0]:
        assert each["indices"] == [10, 11, 12, 13]
        assert each["rows"] == [1, 1, 1, 1]


@pytest.mark.long
def test_check_divides_counts_devices_of_all_processes(together):
    for each in together[0]:
        assert "batch_size=6 must be a positive multiple of 4" in each["error"]


@pytest.mark.long
def test_only_process_0_prints(together):
    assert ["printed once" in output for output in together[1]] == [True, False]


@pytest.mark.long
@pytest.mark.parametrize("how", ["failed", "killed"])
def test_failure_of_one_process_ends_all(in_two_processes, how):
    waiting, ended = in_two_processes(
        lambda index, coordinator, environment: run(
            FAILS, index, coordinator, how, environment=environment
        )
    )
    assert waiting.returncode
    assert ended.returncode
    assert (ended.returncode == -signal.SIGKILL) == (how == "killed")
    assert ("Error: only here" in ended.stderr) == (how == "failed")


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ((None, 2, None), "--coordinator and --process missing"),
        (("head:1234", None, 0), "--processes missing"),
        (("head", 2, 0), "--coordinator=head "),
        (("head:1234", 2, 2), "--process=2 "),
        (("head:1234", 2, -1), "--process=-1 "),
    ],
)
def test_initialize_rejects_inconsistent_flags(flags, value):
    with pytest.raises(UserError, match=value):
        processes.initialize(*flags)


@pytest.fixture
def no_cluster(monkeypatch):
    """JAX does not find a cluster."""

    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes, "_initialize", initialize)


def test_initialize_rejects_unknown_launcher(monkeypatch, no_cluster):
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(UserError, match="PMI_SIZE"):
        processes.initialize(None, None, None)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "2"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "1"},  # An interactive step.
        {"SLURM_JOB_NUM_NODES": "2"},
    ],
)
def test_initialize_rejects_an_allocation_without_srun(monkeypatch, no_cluster, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"allocated 2 tasks.*start the program with srun"):
        processes.initialize(None, None, None)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_NUM_NODES": "2"},
    ],
)
def test_initialize_takes_a_single_task_of_slurm(monkeypatch, no_cluster, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.initialize(None, None, None)


def test_initialize_without_cluster_is_single_process(no_cluster):
    processes.initialize(None, None, None)
    processes.barrier("alone")
    assert processes.is_primary()
    assert processes.process_shard() == {"process_index": 0, "process_count": 1}


@pytest.mark.parametrize(
    ("variables", "alone"),
    [
        ({}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x3)"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x3),1"}, False),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "11"}, False),
    ],
)
def test_initialize_uses_all_devices_of_node(monkeypatch, variables, alone):
    used = []
    monkeypatch.setattr(
        processes,
        "_initialize",
        lambda *address, **options: used.append(options["local_device_ids"]),
    )
    monkeypatch.setattr(processes, "barrier", lambda name: None)
    monkeypatch.setattr(processes.sharding, "connect", lambda: None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.initialize(None, None, None)
    assert used == [[] if alone else None]
