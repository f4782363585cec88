import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from m3dhmr_jax.checkpoints.weights import (
    flatten,
    load_matching,
    load_weights,
    parts_of,
    save_weights,
    summarize,
)

PARAMS = {
    "stem": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.array(0.5)},
    "stages": {0: {"kernel": jnp.ones(4)}, 1: {"kernel": jnp.full(4, 2.0)}},
}
STATS = {"stem": {"mean": jnp.array([-1.0, 7.0])}}


@pytest.fixture
def path(tmp_path):
    save_weights(tmp_path / "run" / "some.safetensors", PARAMS, STATS, {"network": "a toy"})
    return tmp_path / "run" / "some.safetensors"


def test_what_was_saved_comes_back_under_its_path(path):
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


def test_memory_in_another_order_is_saved_as_it_reads(tmp_path):
    turned = np.arange(12.0, dtype=np.float32).reshape(3, 4).T
    save_weights(tmp_path / "w", {"kernel": turned}, {}, {})
    np.testing.assert_array_equal(load_weights(tmp_path / "w").params["kernel"], turned)


def test_a_network_takes_all_of_its_own_weights(path):
    blank = jax.tree.map(jnp.zeros_like, PARAMS)
    tree, adopted = load_matching(blank, load_weights(path).params)
    assert adopted.fits_exactly
    assert jax.tree.structure(tree) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, tree, PARAMS)
    assert not summarize(adopted)


def test_what_fits_is_taken_and_all_else_is_told():
    own = {"a": jnp.zeros(2), "b": jnp.ones((2, 3)), "c": {"d": jnp.full(2, 4, jnp.bfloat16)}}
    found = {"a": np.ones(2), "b": np.ones((3, 2)), "c/d": np.full(2, 1 / 3), "e": np.zeros(())}
    del found["a"]
    tree, adopted = load_matching(own, found)
    assert tree["a"] is own["a"]
    assert tree["b"] is own["b"]
    assert tree["c"]["d"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(tree["c"]["d"], jnp.full(2, 1 / 3, jnp.bfloat16))
    assert adopted == (("c/d",), ("a",), ("e",), (("b", (3, 2), (2, 3)),))
    assert not adopted.fits_exactly
    assert summarize(adopted) == [
        "1 missing there: a",
        "1 unused: e",
        "1 of another shape: b (3, 2) not (2, 3)",
    ]


def test_long_accounts_are_cut():
    _, adopted = load_matching({}, {f"n{i}": np.zeros(1) for i in range(9)})
    assert summarize(adopted) == ["9 unused: n0, n1, n2, n3, n4, n5, n6, n7 and 1 more"]


def test_whole_parts_are_named_as_one():
    names = ["stem/a", "stem/b", "stack/0/a", "stack/0/b", "stack/1/a", "head/a"]
    assert parts_of(names[2:], names[:2]) == ["stack", "head"]
    assert parts_of(names[1:4], [names[0], *names[4:]]) == ["stem/b", "stack/0"]


@pytest.mark.parametrize("left", [0, 4, 30, -1])
def test_a_file_that_was_cut_off_is_refused(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=f"{path}: not a whole safetensors file.*cut off or"):
        load_weights(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip as PyTorch writes", b"\x80\x04\x95" * 40])
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"not a whole safetensors file.*m3dhmr_jax\.convert"):
        load_weights(path)


def test_tensors_of_another_program_are_refused(tmp_path):
    save_file({"layer1.0.conv1.weight": np.zeros(2), "params/a": np.zeros(2)}, tmp_path / "w")
    with pytest.raises(ValueError, match=r"1 of its 2 tensors.*layer1\.0\.conv1\.weight.*convert"):
        load_weights(tmp_path / "w")
    save_file({}, tmp_path / "w")
    with pytest.raises(ValueError, match="0 of its 0 tensors"):
        load_weights(tmp_path / "w")


def test_nan_is_neither_written_nor_read(tmp_path):
    bad = {"a": np.zeros(2), "b": np.array([1, np.nan])}
    with pytest.raises(ValueError, match=r"w: 1 of 2 tensors hold NaN or infinity \(params/b\)"):
        save_weights(tmp_path / "w", bad, {}, {})
    assert not list(tmp_path.iterdir())
    save_file({"stats/var": np.array([np.inf])}, tmp_path / "w")
    with pytest.raises(ValueError, match=r"1 of 1 tensors hold NaN or infinity \(stats/var\)"):
        load_weights(tmp_path / "w")


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such weights file"):
        load_weights(tmp_path / "none")
