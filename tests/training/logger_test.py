import functools
import itertools

import jax.numpy as jnp
import pytest

from m3dhmr_jax.checkpoints.manager import Checkpoints
from m3dhmr_jax.training.logger import TensorBoardWriter, TrainLogger
from m3dhmr_jax.training.step import TrainState
from tests.faults import small_disk

create_logger = functools.partial(
    TrainLogger, log_every_steps=1, batch_size=4, first_step=0, steps=99
)


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    yield checkpoints
    checkpoints.close()


def test_logger_stops_after_ten_skipped_batches_in_a_row(checkpoints, tmp_path):
    bad, good = (
        {"mesh": jnp.array(x), "skipped": jnp.array(skipped)}
        for x, skipped in ((jnp.nan, 1.0), (1.0, 0.0))
    )
    with create_logger(tmp_path, checkpoints) as log:
        steps = itertools.count(1)
        for terms in [bad] * 9 + [good] + [bad] * 10:
            log.step(next(steps), terms)
        assert log.skipped == 18
        with pytest.raises(FloatingPointError, match="step 20: 10 batches"):
            log.flush()


def test_logger_rejects_parameters_that_are_not_finite(checkpoints, tmp_path):
    """A step whose loss is finite may lead to such parameters."""
    state = TrainState(jnp.array(3), {"w": jnp.ones(3)}, {"mean": jnp.zeros(2)}, (), None)
    with create_logger(tmp_path, checkpoints) as log:
        log.check(3, state)
        for bad in ({"params": {"w": jnp.array([1, jnp.nan])}}, {"stats": jnp.array(jnp.inf)}):
            with pytest.raises(FloatingPointError, match="step 3"):
                log.check(3, state._replace(**bad))


def test_tensorboard_writer_survives_a_full_disk(tmp_path, caplog):
    folder = tmp_path / "events"
    with small_disk(folder, 8192):
        writer = TensorBoardWriter(folder)
        for step in range(500):
            writer.add_scalar("train/mesh", 0.5, step)
        writer.close()
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 1, messages
        assert str(folder) in messages[0]
        assert "No space left on device" in messages[0]
