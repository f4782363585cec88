import itertools

import jax.numpy as jnp
import pytest

from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.training.logger import TrainLogger
from m3dhmr_jax.training.step import TrainState


def test_skipping_ends_where_the_run_is_lost(tiny_config, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    bad, good = (
        {"mesh": jnp.array(x), "skipped": jnp.array(skipped)}
        for x, skipped in ((jnp.nan, 1.0), (1.0, 0.0))
    )
    with TrainLogger(tmp_path, tiny_config(), 0, 99, checkpoints) as log:
        steps = itertools.count(1)
        for terms in [bad] * 9 + [good] + [bad] * 10:
            log.step(next(steps), terms)
        assert log.skipped == 18
        with pytest.raises(FloatingPointError, match="step 20: 10 batches in a row are not finite"):
            log.flush()
    checkpoints.close()


def test_parameters_that_are_not_finite_are_never_saved(tiny_config, tmp_path):
    """A step whose loss is finite may end in such parameters."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    state = TrainState(jnp.array(3), {"w": jnp.ones(3)}, {"mean": jnp.zeros(2)}, (), None)
    with TrainLogger(tmp_path, tiny_config(), 0, 99, checkpoints) as log:
        log.check(3, state)
        for bad in ({"params": {"w": jnp.array([1, jnp.nan])}}, {"stats": jnp.array(jnp.inf)}):
            with pytest.raises(FloatingPointError, match=r"step 3: the loss is finite, but.* yet"):
                log.check(3, state._replace(**bad))
    checkpoints.close()
