import logging
import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m3dhmr_jax.checkpoints.manager import Checkpoints, digest
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.training.step import TrainState
from tests.workdirs import steps_in

COMPATIBILITY = {"model": {"width": 64, "blocks": (2, 2, 2, 2)}, "hand": "0123"}


@pytest.fixture
def open_checkpoints(tmp_path):
    """Opens the run's folder; closed at the end of the test."""
    opened = []

    def open_them(compatibility=COMPATIBILITY):
        opened.append(Checkpoints(tmp_path / "checkpoints", compatibility))
        return opened[-1]

    yield open_them
    for checkpoints in opened:
        checkpoints.close()


def state_at(step):
    """Of every kind of leaf that a run has; other values at every step."""
    key = jax.random.key(step)
    return {
        "step": jnp.array(step, jnp.int32),
        "params": {"w": jax.random.normal(key, (300, 40)), "short": jnp.ones(3, jnp.bfloat16)},
        "empty": (),
        "absent": None,
    }


def save_all(checkpoints, errors_mm):
    """Saves steps 1, 2, ... with their scores; None for a step that was not scored."""
    for step, error in enumerate(errors_mm, start=1):
        scores = {} if error is None else {"pa_mpvpe_mm": error}
        checkpoints.save(step, state_at(step), scores, error)
        checkpoints.wait()


def data_files(tmp_path, step):
    """The files that hold the bytes of the arrays."""
    files = (tmp_path / "checkpoints" / str(step) / "state").rglob("d/*")
    return [path for path in files if path.is_file()]


def flip_a_bit(tmp_path, step):
    path = max(data_files(tmp_path, step), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_restore_returns_saved_bits(open_checkpoints):
    save_all(open_checkpoints(), [20.0])
    step, state, scores = open_checkpoints().restore(state_at(0))
    assert step == 1
    assert_same_bits(state, state_at(1))
    assert scores == {"pa_mpvpe_mm": 20.0}


@pytest.fixture
def slow_digest(monkeypatch):
    """Hashing waits until the event is set."""
    may_go_on = threading.Event()

    def wait_and_hash(tree):
        assert may_go_on.wait(60)
        return digest(tree)

    monkeypatch.setattr("m3dhmr_jax.checkpoints.manager.digest", wait_and_hash)
    yield may_go_on
    may_go_on.set()


def delete(state):
    jax.tree.map(lambda leaf: leaf.delete(), state)


def donate(state):
    jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)


@pytest.mark.parametrize("give_away", [delete, donate])
def test_save_copies_arrays_before_it_returns(open_checkpoints, slow_digest, give_away):
    checkpoints = open_checkpoints()
    state = state_at(1)
    checkpoints.save(1, state, {})
    give_away(state)
    slow_digest.set()
    checkpoints.wait()
    assert_same_bits(open_checkpoints().restore(state_at(0))[1], state_at(1))


def test_save_is_complete_only_with_its_digest(open_checkpoints, slow_digest, tmp_path):
    checkpoints = open_checkpoints()
    checkpoints.save(1, state_at(1), {})
    assert steps_in(tmp_path) == []
    assert open_checkpoints().restore(state_at(0)) is None
    slow_digest.set()
    checkpoints.wait()
    assert steps_in(tmp_path) == [1]


def test_failed_digest_is_reported_at_next_call(open_checkpoints, monkeypatch, tmp_path):
    def fail(tree):
        raise MemoryError("no memory")

    monkeypatch.setattr("m3dhmr_jax.checkpoints.manager.digest", fail)
    checkpoints = open_checkpoints()
    checkpoints.save(1, state_at(1), {})
    with pytest.raises(OSError, match="no memory"):
        checkpoints.wait()
    assert steps_in(tmp_path) == []


def test_restore_of_empty_folder_is_none(open_checkpoints):
    checkpoints = open_checkpoints()
    assert checkpoints.restore(state_at(0)) is None
    assert checkpoints.restore_anything() is None
    assert checkpoints.newest() is None
    assert checkpoints.best() is None


def trained_state():
    """As in training: named tuples, numbered layers, and None."""
    params = {"blocks": {i: {"w": jnp.full(3, i, jnp.float32)} for i in range(11)}}
    state = TrainState(jnp.array(5), params, {"mean": jnp.ones(2)}, None, None)
    return state._replace(opt_state=optax.adam(1.0).init(params))


def test_restore_anything_needs_no_tree(open_checkpoints):
    state = trained_state()
    checkpoints = open_checkpoints()
    checkpoints.save(5, state, {})
    checkpoints.wait()
    step, found = open_checkpoints({"another": "network"}).restore_anything()
    assert step == 5
    assert digest(found) == digest(state)
    assert found["ema_params"] is None
    assert isinstance(found["params"]["blocks"]["10"]["w"], np.ndarray)
    np.testing.assert_array_equal(found["params"]["blocks"]["10"]["w"], np.full(3, 10))


@pytest.mark.parametrize(
    ("errors_mm", "best", "left"),
    [
        ([30.0, 20.0, 25.0, None], 2, [2, 4]),
        ([30.0, math.nan, 40.0], 1, [1, 3]),
        ([math.nan, 30.0, 20.0], 3, [3]),
        ([math.inf, 10.0, math.nan, math.nan], 2, [2, 4]),
        ([10.0, 20.0, 30.0], 1, [1, 3]),
    ],
)
def test_save_keeps_newest_and_best(open_checkpoints, tmp_path, errors_mm, best, left):
    checkpoints = open_checkpoints()
    save_all(checkpoints, errors_mm)
    assert steps_in(tmp_path) == left
    assert checkpoints.best() == best
    assert checkpoints.newest() == len(errors_mm)
    assert open_checkpoints().best() == best


@pytest.mark.parametrize("errors_mm", [[None, None], [math.nan, math.nan]])
def test_best_without_scores_is_newest(open_checkpoints, errors_mm):
    checkpoints = open_checkpoints()
    save_all(checkpoints, errors_mm)
    assert checkpoints.best() == 2


def test_restore_takes_best(open_checkpoints):
    checkpoints = open_checkpoints()
    save_all(checkpoints, [10.0, 20.0, 30.0])
    step, state, _ = checkpoints.restore(state_at(0), checkpoints.best())
    assert step == 1
    assert_same_bits(state, state_at(1))


def corrupt(kind, tmp_path, step):
    if kind == "flipped bit":
        flip_a_bit(tmp_path, step)
    elif kind == "truncated arrays":
        for path in data_files(tmp_path, step):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "missing arrays":
        for path in data_files(tmp_path, step):
            path.unlink()
    else:
        meta = tmp_path / "checkpoints" / str(step) / "meta" / "metadata"
        if kind == "missing meta":
            meta.unlink()
        else:
            meta.write_text(meta.read_text()[:20])


KINDS = ("flipped bit", "truncated arrays", "missing arrays", "truncated meta", "missing meta")


@pytest.mark.parametrize("kind", KINDS)
def test_restore_skips_corrupted(open_checkpoints, tmp_path, caplog, kind):
    save_all(open_checkpoints(), [10.0, 20.0, 30.0])
    corrupt(kind, tmp_path, 3)
    with caplog.at_level(logging.ERROR):
        step, state, _ = open_checkpoints().restore(state_at(0))
    assert step == 1
    assert_same_bits(state, state_at(1))
    messages = [each.getMessage() for each in caplog.records if each.name == "absl"]
    assert len(messages) == 2, messages
    assert messages[0].startswith(f"Checkpoint 3 in {tmp_path / 'checkpoints'} is corrupted (")
    assert messages[1] == "Resuming from step 1; 2 steps are lost"
    assert open_checkpoints().restore_anything()[0] == 1


@pytest.mark.parametrize("found_out", ["save", "wait", "close"])
def test_failed_save_is_reported_at_next_call(
    open_checkpoints, tmp_path, no_room, found_out, caplog
):
    checkpoints = open_checkpoints()
    save_all(checkpoints, [10.0])
    no_room()
    checkpoints.save(2, state_at(2), {})
    next_call = {
        "save": lambda: checkpoints.save(3, state_at(3), {}),
        "wait": checkpoints.wait,
        "close": checkpoints.close,
    }
    with pytest.raises(OSError, match="checkpoint of step 2") as raised:
        next_call[found_out]()
    assert "(File too large); the newest is that of step 1" in str(raised.value)
    assert str(tmp_path / "checkpoints") in str(raised.value)
    assert not caplog.records
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    assert_same_bits(open_checkpoints().restore(state_at(0))[1], state_at(1))


def test_restore_rejects_all_corrupted(open_checkpoints, tmp_path):
    save_all(open_checkpoints(), [10.0, 20.0])
    corrupt("flipped bit", tmp_path, 1)
    corrupt("truncated arrays", tmp_path, 2)
    with pytest.raises(UserError, match=r"\[2, 1\]"):
        open_checkpoints().restore(state_at(0))
    with pytest.raises(UserError, match=r"\[2, 1\]"):
        open_checkpoints().restore_anything()


def test_save_replaces_corrupted_step(open_checkpoints, tmp_path):
    """Also the step whose folder is corrupted."""
    save_all(open_checkpoints(), [10.0, 20.0, 30.0])
    corrupt("flipped bit", tmp_path, 3)
    checkpoints = open_checkpoints()
    assert checkpoints.restore(state_at(0))[0] == 1
    checkpoints.save(2, state_at(2), {})
    checkpoints.save(3, state_at(3), {}, 5.0)
    checkpoints.wait()
    step, state, _ = open_checkpoints().restore(state_at(0))
    assert step == 3
    assert_same_bits(state, state_at(3))


def test_restore_rejects_other_network(open_checkpoints):
    save_all(open_checkpoints(), [10.0])
    other = {"model": {"width": 32, "blocks": (2, 2, 2, 2)}, "hand": "4567"}
    with pytest.raises(UserError, match="0123") as raised:
        open_checkpoints(other).restore(state_at(0))
    assert "hand is 0123 there and 4567 here; model.width is 64 there and 32 here" in str(
        raised.value
    )
    assert "blocks" not in str(raised.value)


def test_digest_sees_bits_dtypes_shapes_and_names():
    tree = {"a": jnp.zeros(4), "b": jnp.ones(4)}
    others = [
        {"a": jnp.zeros(4).at[2].set(-0.0), "b": jnp.ones(4)},
        {"a": jnp.zeros(4, jnp.int32), "b": jnp.ones(4)},
        {"a": jnp.zeros((2, 2)), "b": jnp.ones(4)},
        {"a": jnp.zeros(4), "c": jnp.ones(4)},
        {"b": jnp.zeros(4), "a": jnp.ones(4)},
    ]
    assert len({digest(each) for each in (tree, *others)}) == 6
    assert digest(tree) == digest({"b": np.ones(4, np.float32), "a": np.zeros(4, np.float32)})
