import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import sharding

ON_FOUR_DEVICES = """
import json
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import sharding
from m3dhmr_jax.types import Batch

mesh = sharding.device_mesh()
rows = np.arange(8.0, dtype=np.float32)[:, None]
batch = Batch(*[rows] * 7)
sharded = sharding.shard(batch, mesh)
weights = sharding.replicate({"w": np.float32(3)}, mesh)
mean = jax.jit(lambda w, x: (w["w"] * x).mean())(weights, sharded.image)
rejected = []
for size in (4, 6, 8):
    try:
        sharding.check_divides(size, "batch_size")
    except UserError:
        rejected.append(size)
print(json.dumps({
    "rows": [np.asarray(s.data).ravel().tolist() for s in sharded.image.addressable_shards],
    "copies": len(weights["w"].addressable_shards),
    "mean": float(mean),
    "rejected": rejected,
}))
"""


@pytest.fixture(scope="module")
def on_four_devices():
    run = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.long
def test_shard_splits_rows_and_replicate_copies(on_four_devices):
    assert on_four_devices["rows"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert on_four_devices["copies"] == 4


@pytest.mark.long
def test_mean_over_sharded_batch_is_global(on_four_devices):
    assert on_four_devices["mean"] == 3 * 3.5


@pytest.mark.long
def test_check_divides_rejects_uneven_batch_on_four_devices(on_four_devices):
    assert on_four_devices["rejected"] == [6]


def test_check_divides_rejects_uneven_batch():
    n = jax.device_count()
    sharding.check_divides(3 * n, "batch_size")
    for bad in (0, -n):
        with pytest.raises(UserError, match=f"eval.batch_size={bad} "):
            sharding.check_divides(bad, "eval.batch_size")


@pytest.mark.parametrize("accumulate_steps", [0, -1, 3])
def test_check_microbatches_rejects_uneven_split(accumulate_steps):
    n = 4 * jax.device_count()
    with pytest.raises(UserError, match=f"accumulate_steps={accumulate_steps} "):
        sharding.check_microbatches(n, accumulate_steps)
    for good in (1, 2, 4):
        sharding.check_microbatches(n, good)


def test_replicate_keeps_bits():
    tree = {"a": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32), "n": np.int32(7)}
    copy = sharding.replicate(tree, sharding.device_mesh())
    jax.tree.map(np.testing.assert_array_equal, copy, tree)
