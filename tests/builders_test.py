import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.builders import (
    checkpoints_of,
    create_network,
    create_optimizer,
    create_pretraining,
    initialised,
    read_run,
    trained_state,
)
from m3dhmr_jax.checkpoints.weights import flatten, save_weights
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import predict
from m3dhmr_jax.training.step import init_state

FIRST_HALF = ("backbone/stem", "backbone/stack1", "backbone/remap", "backbone/merge")
EMA = 0.5


@pytest.fixture(scope="module")
def pretraining(tiny_config):
    """A network of the 2D pre-training, of values that no fresh one has."""
    network = create_pretraining(tiny_config(task="landmarks"))
    params, stats = jax.tree.map(lambda x: x + 3.0, (network.params, network.stats))
    return network._replace(params=params, stats=stats)


@pytest.fixture(scope="module")
def run(pretraining, tiny_config, tmp_path_factory):
    """The workdir of its run, whose parameters have a running mean: what evaluation takes."""
    workdir = tmp_path_factory.mktemp("pretraining")
    config = tiny_config(**{"optim.ema_decay": EMA})
    state = init_state(pretraining.params, pretraining.stats, create_optimizer(config, 10), EMA)
    raw = jax.tree.map(lambda x: x + 100.0, state.params)
    checkpoints = checkpoints_of(workdir, pretraining)
    checkpoints.save(7, state._replace(params=raw), {})
    checkpoints.wait()
    checkpoints.close()
    return workdir


def same(tree, other):
    a, b = flatten(tree), flatten(other)
    return {name for name in a.keys() & b.keys() if np.array_equal(a[name], b[name])}


def test_a_pretrained_first_half_is_taken_to_the_bit_and_all_else_stays_fresh(
    tiny_network, pretraining, run, capsys
):
    network = initialised(tiny_network, str(run))
    for taken, fresh, source in (
        (network.params, tiny_network.params, pretraining.params),
        (network.stats, tiny_network.stats, pretraining.stats),
    ):
        names = set(flatten(taken))
        first_half = {name for name in names if name.startswith(FIRST_HALF)}
        assert same(taken, source) == first_half
        assert same(taken, fresh) == names - first_half
        assert jax.tree.structure(taken) == jax.tree.structure(fresh)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"Starting from {run}:"
    names = set(flatten(tiny_network.params))
    used = len([name for name in names if name.startswith(FIRST_HALF)])
    assert said[1].startswith(f"  {used} of {len(names)} parameters used; {len(names) - used} miss")
    for part in ("backbone/stack2", "decoder", "unused: heatmap_head, map_head"):
        assert part in said[1]
    assert "BatchNorm statistics used" in said[2]
    assert len(said) == 3


def test_a_weights_file_starts_a_network_as_its_run_does(tiny_network, run, tmp_path):
    found = read_run(run)
    assert found.metadata == {"step": "7"}
    save_weights(tmp_path / "w", found.params, found.stats, {})
    by_file, by_run = (initialised(tiny_network, str(x)) for x in (tmp_path / "w", run))
    jax.tree.map(np.testing.assert_array_equal, by_file.params, by_run.params)
    jax.tree.map(np.testing.assert_array_equal, by_file.stats, by_run.stats)


def test_without_a_source_a_network_stays_fresh(tiny_network):
    assert initialised(tiny_network, "") is tiny_network


def test_the_running_mean_starts_from_what_was_taken(tiny_network, run, tiny_config):
    network = initialised(tiny_network, str(run))
    state = init_state(network.params, network.stats, create_optimizer(tiny_config(), 10), EMA)
    jax.tree.map(np.testing.assert_array_equal, state.ema_params, network.params)


def test_a_source_of_which_nothing_fits_is_refused(tiny_network, tmp_path):
    save_weights(tmp_path / "w", {"backbone": {"stem": jnp.ones(3)}}, {"x": jnp.ones(2)}, {})
    with pytest.raises(ValueError, match=r"nothing in it fits this network.*unused: backbone/stem"):
        initialised(tiny_network, str(tmp_path / "w"))


def test_a_source_that_is_not_there_or_damaged_is_refused(tiny_network, run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        initialised(tiny_network, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="neither a weights file nor the workdir of a run"):
        initialised(tiny_network, str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no finished checkpoint here"):
        initialised(tiny_network, str(tmp_path))
    copy = shutil.copytree(run, tmp_path / "copy")
    for path in (copy / "checkpoints" / "7" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"all checkpoints \(steps \[7\]\) are damaged"):
        initialised(tiny_network, str(copy))


def test_a_weights_file_of_the_whole_network_is_a_state_of_it(tiny_network, tiny_config, tmp_path):
    params = jax.tree.map(lambda x: x + 1, tiny_network.params)
    save_weights(tmp_path / "w", params, tiny_network.stats, {})
    config = tiny_config(**{"eval.checkpoint": str(tmp_path / "w")})
    state = trained_state(config, tiny_network, tmp_path / "no run")
    jax.tree.map(np.testing.assert_array_equal, state.eval_params, params)
    jax.tree.map(np.testing.assert_array_equal, state.stats, tiny_network.stats)


def test_a_weights_file_that_does_not_fit_exactly_is_no_state(
    tiny_network, tiny_config, pretraining, tmp_path
):
    """A part of the network, more than the network, another size of it."""
    config = tiny_config(**{"eval.checkpoint": str(tmp_path / "w")})
    wrong = [
        (pretraining.params, pretraining.stats, "parameters: .* missing there: backbone/stack2"),
        (tiny_network.params | {"more": jnp.ones(2)}, tiny_network.stats, "1 unused: more"),
        (tiny_network.params, {}, "statistics: .* missing there: backbone"),
        (
            tiny_network.params
            | {"decoder": tiny_network.params["decoder"] | {"lifting_matrix": jnp.ones(2)}},
            tiny_network.stats,
            r"1 of another shape: decoder/lifting_matrix \(2,\) not \(49, 21\)",
        ),
    ]
    for params, stats, told in wrong:
        save_weights(tmp_path / "w", params, stats, {})
        with pytest.raises(ValueError, match=f"w is not of this network.*{told}"):
            trained_state(config, tiny_network, tmp_path)


def test_weights_for_other_mesh_tables_are_told_from_those_for_these(
    tiny_network, tiny_config, tmp_path, capsys
):
    config = tiny_config(**{"eval.checkpoint": str(tmp_path / "w")})
    arrays = tiny_network.params, tiny_network.stats
    save_weights(tmp_path / "w", *arrays, {"hierarchy": tiny_network.compatibility["hierarchy"]})
    trained_state(config, tiny_network, tmp_path)
    initialised(tiny_network, str(tmp_path / "w"))
    assert "mesh hierarchy" not in capsys.readouterr().out
    save_weights(tmp_path / "w", *arrays, {"hierarchy": "0123"})
    with pytest.raises(
        ValueError, match=r"w is not of this network.*made for the mesh hierarchy 0123"
    ):
        trained_state(config, tiny_network, tmp_path)
    initialised(tiny_network, str(tmp_path / "w"))
    assert "made for the mesh hierarchy 0123" in capsys.readouterr().out


def test_a_checkpoint_of_no_such_name_is_refused(tiny_network, tiny_config, tmp_path):
    config = tiny_config(**{"eval.checkpoint": "nwest"})
    with pytest.raises(ValueError, match="'nwest' must be 'newest', 'best' or a weights file"):
        trained_state(config, tiny_network, tmp_path)


def test_a_pretraining_answers_no_mesh(tiny_config):
    with pytest.raises(ValueError, match=r"answers no mesh; start a whole one.*init_from"):
        create_network(tiny_config(task="landmarks"), load_builtin())


def test_a_network_that_is_not_drawn_is_the_same_but_for_its_arrays(tiny_config, tiny_network):
    shaped = create_network(tiny_config(), load_builtin(), abstract=True)
    for own, drawn in ((shaped.params, tiny_network.params), (shaped.stats, tiny_network.stats)):
        assert jax.tree.structure(own) == jax.tree.structure(drawn)
        for shape, array in zip(jax.tree.leaves(own), jax.tree.leaves(drawn), strict=True):
            assert not isinstance(shape, jax.Array)
            assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
    arrays = tiny_network.params, tiny_network.stats
    image = jnp.zeros((1, shaped.image_size, shaped.image_size, 3))
    answers = [predict(net.eval_graphdef, *arrays, image) for net in (shaped, tiny_network)]
    jax.tree.map(np.testing.assert_array_equal, *answers)
