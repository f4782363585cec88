import jax
import numpy as np
import pytest

from m3dhmr_jax.builders import create_network, create_pretraining
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.tasks import create_task


def test_create_network_rejects_landmark_task(tiny_config):
    with pytest.raises(UserError, match="task='landmarks'"):
        create_network(tiny_config(task="landmarks"), load_builtin())


def test_create_task_rejects_unknown_task(tiny_config):
    with pytest.raises(UserError, match="task='segments'"):
        create_task(tiny_config(task="segments"), load_builtin())


def test_create_task_of_landmarks_selects_by_their_error(tiny_config):
    config = tiny_config(task="landmarks", **{"loss.heatmap_sigma_cells": 1.5})
    task = create_task(config, load_builtin(), abstract=True)
    assert task.best_metric == "landmark_error_px"
    assert task.best_metric in task.reported_metrics


def test_abstract_network_has_the_shapes_and_graphs_of_an_initialized_one(tiny_config):
    config = tiny_config(task="landmarks", **{"model.image_size": 32})
    abstract = create_pretraining(config, abstract=True)
    networks = create_pretraining(config), abstract.initialized()
    assert not [x for x in jax.tree.leaves(abstract.params) if isinstance(x, jax.Array)]
    for network in networks:
        assert network.compatibility == abstract.compatibility
        assert str(network.eval_graphdef) == str(abstract.eval_graphdef)
        for shapes, arrays in (
            (abstract.params, network.params),
            (abstract.stats, network.stats),
        ):
            assert jax.tree.structure(shapes) == jax.tree.structure(arrays)
            for shape, array in zip(jax.tree.leaves(shapes), jax.tree.leaves(arrays), strict=True):
                assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
    jax.tree.map(np.testing.assert_array_equal, *(network.params for network in networks))
