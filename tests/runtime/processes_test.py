import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from m3dhmr_jax.runtime import processes

TOGETHER = """
import json, socket, sys
from pathlib import Path
import numpy as np
from m3dhmr_jax import processes, sharding
from m3dhmr_jax.data import pipeline
from m3dhmr_jax.evaluate.scoring import gather

index, dataset_dir, folder = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
processes.initialize(None, None, None)
share, mesh, found = processes.process_shard(), sharding.device_mesh(), {}

@processes.once_per_host
def makes_once(file):
    made = not file.exists()
    if made:
        with file.open("x"):
            pass
    return made

found["made_shared"] = makes_once(folder / "shared")
socket.gethostname = lambda: f"host{index}"
found["made_on_own_disk"] = makes_once(folder / f"disk_of_{index}")
found["any"] = [processes.any_process(index == 1), processes.any_process(False)]

copy = sharding.replicate({"w": np.full(3, 7 + index, np.float32)}, mesh)
found["replicated"] = np.asarray(copy["w"]).tolist()

batches = pipeline.train_batches(dataset_dir, 4, 1, start_step=1, **share)
found["read"] = [next(batches).index.tolist() for _ in range(9)]
for size in (4, 8):
    rows = gather(lambda batch: batch.index, pipeline.eval_batches(dataset_dir, size, **share))
    found[f"gathered_{size}"] = rows.tolist()

def rows_in_it(batch, first):
    return batch.index + first + 0 * len(batch.index), 0 * batch.index + len(batch.index)

batch = sharding.shard(next(pipeline.eval_batches(dataset_dir, 4, **share)), mesh)
answered, at_once = sharding.gather_to_host(sharding.data_parallel(rows_in_it, mesh)(batch, np.int32(10)))
found["answered"], found["at_once"] = answered.tolist(), at_once.tolist()
try:
    sharding.check_divides(6, "batch_size")
except ValueError as error:
    found["refusal"] = str(error)
print("said once")
(folder / f"{index}.json").write_text(json.dumps(found))
processes.barrier("the end")
"""

FAILS = """
import os, signal, sys
from m3dhmr_jax import processes
processes.PATIENCE_S = 5
processes.initialize(sys.argv[2], 2, int(sys.argv[1]))
if sys.argv[1] == "1":
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit("Error: only here")
processes.barrier("in vain")
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
    """What each of two processes with two devices each found, and what they said.

    They find each other by what SLURM tells them.
    """
    folder = tmp_path_factory.mktemp("together")

    def start(index, coordinator, environment):
        host, port = coordinator.split(":")
        slurm = {
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": host,
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
            "JAX_COORDINATOR_PORT": port,
        }
        return run(TOGETHER, index, dataset_dir, folder, environment=environment | slurm)

    results = in_two_processes(start)
    for result in results:
        assert result.returncode == 0, result.stderr
    found = [json.loads((folder / f"{index}.json").read_text()) for index in range(2)]
    return found, [result.stdout for result in results]


def test_files_are_made_once_where_hosts_share_them_and_once_per_host_where_not(together):
    found, _ = together
    assert [each["made_shared"] for each in found] == [True, False]
    assert [each["made_on_own_disk"] for each in found] == [True, True]


def test_what_one_process_sees_all_know(together):
    assert [each["any"] for each in together[0]] == [[True, False]] * 2


def test_all_devices_get_the_arrays_of_the_first_process(together):
    assert [each["replicated"] for each in together[0]] == [[7, 7, 7]] * 2


def test_each_photo_is_read_once_per_epoch_over_all_processes(together):
    """Ten photos; nine batches of four from the second on are the last six and three epochs."""
    first, second = (np.array(each["read"]) for each in together[0])
    assert first.shape == second.shape == (9, 2)
    read = np.concatenate([first, second], axis=1).ravel()[6:]
    np.testing.assert_array_equal(np.sort(read.reshape(3, 10), axis=1), [np.arange(10)] * 3)


@pytest.mark.parametrize("size", [4, 8])
def test_seven_test_photos_on_four_devices_count_once_each_and_in_order(together, size):
    assert [each[f"gathered_{size}"] for each in together[0]] == [list(range(7))] * 2


def test_each_device_answers_for_its_row(together):
    for each in together[0]:
        assert each["answered"] == [10, 11, 12, 13]
        assert each["at_once"] == [1, 1, 1, 1]


def test_a_batch_that_cannot_be_shared_is_refused(together):
    for each in together[0]:
        assert "batch_size=6 must be a positive multiple of 4" in each["refusal"]
        assert "devices of all 2 processes" in each["refusal"]


def test_only_the_first_process_speaks(together):
    assert ["said once" in output for output in together[1]] == [True, False]


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_a_process_that_fails_or_is_killed_takes_the_others_with_it(in_two_processes, how):
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
    ("flags", "words"),
    [
        ((None, 2, None), "--coordinator and --process missing: --coordinator, --processes"),
        (("head:1234", None, 0), "--processes missing"),
        (("head", 2, 0), "--coordinator=head must be host:port"),
        (("head:1234", 2, 2), "--process=2 must be 0 to 1: one number for each of the --processes"),
        (("head:1234", 2, -1), "--process=-1 must be 0 to 1"),
    ],
)
def test_flags_that_do_not_fit_together_are_named(flags, words):
    with pytest.raises(ValueError, match=words):
        processes.initialize(*flags)


@pytest.fixture
def no_cluster(monkeypatch):
    """As jax answers on a machine of one's own."""

    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(processes, "_initialize", initialize)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch, no_cluster):
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(ValueError, match=r"4 processes were started \(PMI_SIZE\), but jax cannot"):
        processes.initialize(None, None, None)


def test_one_process_needs_no_others(no_cluster):
    processes.initialize(None, None, None)
    processes.barrier("nobody")
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
def test_a_process_alone_on_its_node_takes_all_its_devices(monkeypatch, variables, alone):
    taken = []
    monkeypatch.setattr(
        processes,
        "_initialize",
        lambda *place, **options: taken.append(options["local_device_ids"]),
    )
    monkeypatch.setattr(processes, "barrier", lambda why: None)
    monkeypatch.setattr(processes.sharding, "connect", lambda: None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.initialize(None, None, None)
    assert taken == [[] if alone else None]
