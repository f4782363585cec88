import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from m3dhmr_jax.builders import create_pretraining
from m3dhmr_jax.checkpoints.restore import (
    initialize_from,
    open_checkpoints,
    read_run,
    restore_eval_state,
)
from m3dhmr_jax.checkpoints.weights import flatten, save_weights
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.training.step import init_state
from tests.conftest import fill

FIRST_HALF = ("backbone/stem", "backbone/stack1", "backbone/remap", "backbone/merge")
EMA_DECAY = 0.5


@pytest.fixture(scope="module")
def pretraining(tiny_config):
    """A network of the 2D pre-training, unlike any other."""
    return fill(create_pretraining(tiny_config(task="landmarks"), abstract=True), seed=1)


def save_run(workdir, network, *steps):
    """Checkpoints of runs with an EMA, which is the network's parameters plus the step."""
    checkpoints = open_checkpoints(workdir, network)
    for step in steps:
        params = jax.tree.map(lambda x, step=step: x + step, network.params)
        state = init_state(params, network.stats, optax.adam(1e-3), EMA_DECAY)
        raw = jax.tree.map(lambda x: x + 100.0, params)
        state = state._replace(step=jnp.array(step), params=raw)
        checkpoints.save(step, state, {}, error=float(step))
    checkpoints.close()


@pytest.fixture(scope="module")
def run(pretraining, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretraining")
    save_run(workdir, pretraining, 7)
    return workdir


def corrupt(checkpoint):
    for path in (checkpoint / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-9])


def equal_leaves(tree, other):
    a, b = flatten(tree), flatten(other)
    return {name for name in a.keys() & b.keys() if np.array_equal(a[name], b[name])}


def test_initialize_from_takes_the_first_half_and_keeps_the_rest(
    tiny_network, pretraining, run, capsys
):
    network = initialize_from(tiny_network, str(run))
    trained = jax.tree.map(lambda x: x + 7, pretraining.params)
    for taken, fresh, source in (
        (network.params, tiny_network.params, trained),
        (network.stats, tiny_network.stats, pretraining.stats),
    ):
        names = set(flatten(taken))
        first_half = {name for name in names if name.startswith(FIRST_HALF)}
        assert equal_leaves(taken, source) == first_half
        assert equal_leaves(taken, fresh) == names - first_half
        assert jax.tree.structure(taken) == jax.tree.structure(fresh)
    lines = capsys.readouterr().out.splitlines()
    assert str(run) in lines[0]
    names = set(flatten(tiny_network.params))
    used = len([name for name in names if name.startswith(FIRST_HALF)])
    assert f"{used} of {len(names)} parameters used; {len(names) - used} miss" in lines[1]
    for part in ("backbone/stack2", "decoder", "heatmap_head, map_head"):
        assert part in lines[1]
    assert len(lines) == 3


def test_initialize_from_weights_file_equals_its_run(tiny_network, run, tmp_path):
    found = read_run(run)
    assert found.metadata == {"step": "7"}
    save_weights(tmp_path / "w", found.params, found.stats, {})
    by_file, by_run = (initialize_from(tiny_network, str(x)) for x in (tmp_path / "w", run))
    jax.tree.map(np.testing.assert_array_equal, by_file.params, by_run.params)
    jax.tree.map(np.testing.assert_array_equal, by_file.stats, by_run.stats)


def test_initialize_from_nothing_keeps_the_network(tiny_network):
    assert initialize_from(tiny_network, "") is tiny_network


def test_initialize_from_rejects_foreign_weights(tiny_network, tmp_path):
    save_weights(tmp_path / "w", {"backbone": {"stem": jnp.ones(3)}}, {"x": jnp.ones(2)}, {})
    with pytest.raises(UserError, match=r"init_from=.*/w: .*backbone/stem"):
        initialize_from(tiny_network, str(tmp_path / "w"))


def test_initialize_from_rejects_missing_and_corrupted_sources(tiny_network, run, tmp_path):
    with pytest.raises((UserError, FileNotFoundError), match="none"):
        initialize_from(tiny_network, str(tmp_path / "none"))
    with pytest.raises(UserError, match=str(tmp_path)):
        initialize_from(tiny_network, str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="checkpoints"):
        initialize_from(tiny_network, str(tmp_path))
    copy = shutil.copytree(run, tmp_path / "copy")
    corrupt(copy / "checkpoints" / "7")
    with pytest.raises(ValueError, match=r"\[7\]"):
        initialize_from(tiny_network, str(copy))


@pytest.fixture(scope="module")
def own_run(pretraining, tmp_path_factory):
    """Step 3 has the smallest error, step 5 is the newest."""
    workdir = tmp_path_factory.mktemp("own")
    save_run(workdir, pretraining, 3, 5)
    return workdir


@pytest.mark.parametrize(("checkpoint", "step"), [("newest", 5), ("best", 3)])
def test_restore_eval_state_reads_the_ema_of_a_checkpoint(pretraining, own_run, checkpoint, step):
    abstract = jax.eval_shape(lambda: (pretraining.params, pretraining.stats))
    network = pretraining._replace(params=abstract[0], stats=abstract[1])
    state = restore_eval_state(network, own_run, checkpoint)
    assert state.step == step
    want = jax.tree.map(lambda x: x + step, pretraining.params)
    jax.tree.map(np.testing.assert_array_equal, state.params, want)
    jax.tree.map(np.testing.assert_array_equal, state.stats, pretraining.stats)


def test_restore_eval_state_falls_back_to_an_older_checkpoint(pretraining, own_run, tmp_path):
    copy = shutil.copytree(own_run, tmp_path / "copy")
    corrupt(copy / "checkpoints" / "5")
    assert restore_eval_state(pretraining, copy, "newest").step == 3


def test_restore_eval_state_rejects_another_network(pretraining, own_run):
    other = pretraining._replace(compatibility=pretraining.compatibility | {"task": "mesh"})
    with pytest.raises(ValueError, match="task is landmarks there and mesh here"):
        restore_eval_state(other, own_run, "newest")


def test_restore_eval_state_rejects_a_run_without_checkpoint(tiny_network, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        restore_eval_state(tiny_network, tmp_path, "newest")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=str(tmp_path)):
        restore_eval_state(tiny_network, tmp_path, "best")


def test_restore_eval_state_reads_a_weights_file(tiny_network, tmp_path):
    params = jax.tree.map(lambda x: x + 1, tiny_network.params)
    save_weights(tmp_path / "w", params, tiny_network.stats, {"step": "many"})
    state = restore_eval_state(tiny_network, tmp_path / "no run", str(tmp_path / "w"))
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    jax.tree.map(np.testing.assert_array_equal, state.stats, tiny_network.stats)
    assert state.step == 0


def test_restore_eval_state_rejects_a_weights_file_that_differs(
    tiny_network, pretraining, tmp_path
):
    """A part of the network, more than the network, another size of it."""
    path = tmp_path / "w"
    name = next(iter(tiny_network.params["decoder"]))
    other_shape = {"decoder": tiny_network.params["decoder"] | {name: jnp.ones(2)}}
    wrong = [
        (pretraining.params, pretraining.stats, "backbone/stack2"),
        (tiny_network.params | {"more": jnp.ones(2)}, tiny_network.stats, "more"),
        (tiny_network.params, {}, "statistics: .* backbone"),
        (tiny_network.params | other_shape, tiny_network.stats, f"decoder/{name}"),
    ]
    for params, stats, offending in wrong:
        save_weights(path, params, stats, {})
        with pytest.raises(UserError, match=f"w does not match.*{offending}"):
            restore_eval_state(tiny_network, tmp_path, str(path))


def test_weights_of_another_hierarchy_are_rejected_or_named(tiny_network, tmp_path, capsys):
    path, arrays = tmp_path / "w", (tiny_network.params, tiny_network.stats)
    save_weights(path, *arrays, {"hierarchy": tiny_network.compatibility["hierarchy"]})
    restore_eval_state(tiny_network, tmp_path, str(path))
    initialize_from(tiny_network, str(path))
    assert "mesh hierarchy" not in capsys.readouterr().out
    save_weights(path, *arrays, {"hierarchy": "0123"})
    with pytest.raises(UserError, match="mesh hierarchy 0123"):
        restore_eval_state(tiny_network, tmp_path, str(path))
    initialize_from(tiny_network, str(path))
    assert "mesh hierarchy 0123" in capsys.readouterr().out


def test_restore_eval_state_rejects_an_unknown_name(tiny_network, tmp_path):
    with pytest.raises(UserError, match=r"eval.checkpoint='nwest'"):
        restore_eval_state(tiny_network, tmp_path, "nwest")
