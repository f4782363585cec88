import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from m3dhmr_jax.runtime import sharding

ON_FOUR_DEVICES = """
import json
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from m3dhmr_jax import sharding
from m3dhmr_jax.types import Batch

mesh = sharding.device_mesh()
rows = np.arange(8.0, dtype=np.float32)[:, None]
batch = Batch(*[rows] * 7)
cut = sharding.shard(batch, mesh)
weights = sharding.replicate({"w": np.float32(3)}, mesh)
mean = jax.jit(lambda w, x: (w["w"] * x).mean())(weights, cut.image)
try:
    sharding.check_divides(6, "batch_size")
except ValueError as error:
    refusal = str(error)
sharding.check_divides(8, "batch_size")
print(json.dumps({
    "rows": [np.asarray(s.data).ravel().tolist() for s in cut.image.addressable_shards],
    "copies": len(weights["w"].addressable_shards),
    "mean": float(mean),
    "refusal": refusal,
}))
"""


@pytest.fixture(scope="module")
def on_four_devices():
    run = subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_each_device_gets_its_rows_and_every_parameter(on_four_devices):
    assert on_four_devices["rows"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert on_four_devices["copies"] == 4


def test_a_mean_over_the_batch_is_over_all_devices(on_four_devices):
    assert on_four_devices["mean"] == 3 * 3.5


def test_a_batch_that_devices_cannot_share_evenly_is_refused(on_four_devices):
    assert "batch_size=6 must be a positive multiple of 4" in on_four_devices["refusal"]
    n = jax.device_count()
    sharding.check_divides(3 * n, "batch_size")
    for bad in (0, -n):
        with pytest.raises(ValueError, match=f"eval.batch_size={bad} must be a positive multiple"):
            sharding.check_divides(bad, "eval.batch_size")


@pytest.mark.parametrize("parts", [0, -1, 3])
def test_parts_that_a_batch_does_not_have_are_refused(parts):
    n = 4 * jax.device_count()
    with pytest.raises(ValueError, match=f"accumulate_steps={parts} must be .* batch_size={n}"):
        sharding.check_microbatches(n, parts)
    for good in (1, 2, 4):
        sharding.check_microbatches(n, good)


def test_replicated_arrays_keep_their_bits():
    tree = {"a": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32), "n": np.int32(7)}
    copy = sharding.replicate(tree, sharding.device_mesh())
    jax.tree.map(np.testing.assert_array_equal, copy, tree)
