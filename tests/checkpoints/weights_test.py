import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from m3dhmr_jax.checkpoints.weights import (
    flatten,
    load_matching,
    load_weights,
    names_of,
    parts_of,
    save_weights,
    summarize,
)
from m3dhmr_jax.errors import UserError

PARAMS = {
    "stem": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.array(0.5)},
    "stages": {0: {"kernel": jnp.ones(4)}, 1: {"kernel": jnp.full(4, 2.0)}},
}
STATS = {"stem": {"mean": jnp.array([-1.0, 7.0])}}


@pytest.fixture
def path(tmp_path):
    save_weights(tmp_path / "run" / "some.safetensors", PARAMS, STATS, {"network": "a toy"})
    return tmp_path / "run" / "some.safetensors"


def test_load_weights_returns_saved_arrays(path):
    weights = load_weights(path)
    assert set(weights.params) == {
        "stem/kernel",
        "stem/bias",
        "stages/0/kernel",
        "stages/1/kernel",
    }
    for tree, found in ((PARAMS, weights.params), (STATS, weights.stats)):
        for name, array in flatten(tree).items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    assert weights.metadata == {"network": "a toy"}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_save_weights_ignores_memory_order(tmp_path):
    transposed = np.arange(12.0, dtype=np.float32).reshape(3, 4).T
    save_weights(tmp_path / "w", {"kernel": transposed}, {}, {})
    np.testing.assert_array_equal(load_weights(tmp_path / "w").params["kernel"], transposed)


def test_load_matching_loads_own_weights(path):
    blank = jax.tree.map(jnp.zeros_like, PARAMS)
    tree, report = load_matching(blank, load_weights(path).params)
    assert report == (tuple(names_of(PARAMS)), (), (), ())
    assert jax.tree.structure(tree) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, tree, PARAMS)
    assert not summarize(report)


def test_load_matching_reports_mismatches():
    own = {"a": jnp.zeros(2), "b": jnp.ones((2, 3)), "c": {"d": jnp.full(2, 4, jnp.bfloat16)}}
    found = {"a": np.ones(2), "b": np.ones((3, 2)), "c/d": np.full(2, 1 / 3), "e": np.zeros(())}
    del found["a"]
    tree, report = load_matching(own, found)
    assert tree["a"] is own["a"]
    assert tree["b"] is own["b"]
    assert tree["c"]["d"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(tree["c"]["d"], jnp.full(2, 1 / 3, jnp.bfloat16))
    assert report == (("c/d",), ("a",), ("e",), (("b", (3, 2), (2, 3)),))
    assert summarize(report) == [
        "1 missing in the file: a",
        "1 unused: e",
        "1 of another shape: b (3, 2) not (2, 3)",
    ]


def test_summarize_limits_names():
    _, report = load_matching({}, {f"n{i}": np.zeros(1) for i in range(9)})
    assert summarize(report) == ["9 unused: n0, n1, n2, n3, n4, n5, n6, n7 and 1 more"]


def test_parts_of_finds_shortest_prefixes():
    names = ["stem/a", "stem/b", "stack/0/a", "stack/0/b", "stack/1/a", "head/a"]
    assert parts_of(names[2:], names[:2]) == ["stack", "head"]
    assert parts_of(names[1:4], [names[0], *names[4:]]) == ["stem/b", "stack/0"]


@pytest.mark.parametrize("left", [0, 4, 30, -1])
def test_load_weights_rejects_truncated_file(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=str(path)):
        load_weights(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip as PyTorch writes", b"\x80\x04\x95" * 40])
def test_load_weights_rejects_other_format(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        load_weights(path)


def test_load_weights_rejects_foreign_names(tmp_path):
    save_file({"layer1.0.conv1.weight": np.zeros(2), "params/a": np.zeros(2)}, tmp_path / "w")
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight"):
        load_weights(tmp_path / "w")
    save_file({}, tmp_path / "w")
    with pytest.raises(UserError, match="0 of its 0 tensors"):
        load_weights(tmp_path / "w")


def test_weights_reject_nan(tmp_path):
    bad = {"a": np.zeros(2), "b": np.array([1, np.nan])}
    with pytest.raises(UserError, match="params/b"):
        save_weights(tmp_path / "w", bad, {}, {})
    assert not list(tmp_path.iterdir())
    save_file({"stats/var": np.array([np.inf])}, tmp_path / "w")
    with pytest.raises(UserError, match="stats/var"):
        load_weights(tmp_path / "w")


def test_load_weights_rejects_missing_file(tmp_path):
    with pytest.raises(UserError, match="none"):
        load_weights(tmp_path / "none")


def test_half_precision_is_on_disk_only(tmp_path):
    params = {"kernel": jnp.asarray([0.1, -3.3e-5, 60000.0])}
    stats = {"var": jnp.asarray([1e6])}  # More than float16 holds.
    save_weights(tmp_path / "full", params, stats, {})
    save_weights(tmp_path / "half", params, stats, {}, half=True)
    assert (tmp_path / "half").stat().st_size < (tmp_path / "full").stat().st_size
    weights = load_weights(tmp_path / "half")
    assert weights.params["kernel"].dtype == weights.stats["var"].dtype == np.float32
    np.testing.assert_allclose(weights.params["kernel"], params["kernel"], rtol=1e-3)
    assert (weights.params["kernel"] != params["kernel"]).any()
    np.testing.assert_array_equal(weights.stats["var"], stats["var"])


def test_half_precision_is_rejected_for_what_it_cannot_hold(tmp_path):
    params = {"good": jnp.ones(2), "huge": jnp.asarray([7e4])}
    with pytest.raises(UserError, match=r"1 of 2 tensors .*params/huge"):
        save_weights(tmp_path / "half", params, {}, {}, half=True)
    assert not (tmp_path / "half").exists()
