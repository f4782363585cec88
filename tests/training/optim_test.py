import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.training.optim import adam, create_optimizer, lr_schedule, update_ema

CONSTANT = lr_schedule(0.1, 10, 0.0, (), 0.5)


def lrs(schedule, *steps):
    return [float(schedule(step)) for step in steps]


def test_lr_schedule_of_the_paper_falls_to_a_tenth_at_epoch_30():
    schedule = lr_schedule(1e-3, 100, 0.0, (30.0,), 0.1)
    got = lrs(schedule, 0, 1, 2999, 3000, 3001, 3799)
    np.testing.assert_allclose(got, [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4], rtol=1e-6)


def test_lr_schedule_warms_up_and_decays_at_epochs_from_the_start():
    schedule = lr_schedule(0.8, 10, 0.4, (2.0, 3.5), 0.5)  # Four steps of warm-up.
    got = lrs(schedule, 0, 1, 2, 3, 4, 19, 20, 34, 35, 99)
    want = [0.2, 0.35, 0.5, 0.65, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_lr_schedule_without_decays_is_constant():
    np.testing.assert_allclose(lrs(CONSTANT, 0, 500), 0.1, rtol=1e-6)


def test_adam_starts_with_a_step_of_one_lr():
    optimizer = adam(CONSTANT, np.inf)
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    grads = {"a": jnp.array([5.0, -0.01]), "b": jnp.array(0.0)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"], [-0.1, 0.1], rtol=1e-4)
    assert updates["b"] == 0


def second_step(clip_norm):
    """The second step of Adam, after a gradient of 1000 and one of -1."""
    optimizer = adam(CONSTANT, clip_norm)
    params = jnp.zeros(1)
    _, state = optimizer.update(jnp.full(1, 1000.0), optimizer.init(params), params)
    updates, _ = optimizer.update(jnp.full(1, -1.0), state, params)
    return float(updates[0])


def test_adam_clips_a_huge_first_gradient():
    # By hand: moments of -1 after +2, bias removed, (0.9 * 0.1 * 2 - 0.1) / (1 - 0.9**2), and
    # (0.999 * 0.001 * 4 + 0.001) / (1 - 0.999**2).
    want = -0.1 * (0.08 / 0.19) / np.sqrt(0.004996 / 0.001999)
    np.testing.assert_allclose(second_step(2.0), want, rtol=1e-4)
    assert second_step(np.inf) < 1.2 * want  # Unclipped, the first gradient still dominates.


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.nan])
def test_adam_rejects_clip_norm(clip_norm):
    with pytest.raises(UserError, match=f"optim.clip_norm={clip_norm}"):
        adam(CONSTANT, clip_norm)


def test_create_optimizer_reads_the_config(tiny_config):
    with pytest.raises(UserError, match=r"optim.warmup_epochs=-2.0"):
        create_optimizer(tiny_config(**{"optim.warmup_epochs": -2.0}), 10)


def test_update_ema_keeps_a_fraction_of_decay():
    ema = update_ema({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([2.0, 10.0])}, 0.9)
    np.testing.assert_allclose(ema["w"], [1.1, 1.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_decay_epochs": (3.0, 2.0)}, r"optim.lr_decay_epochs=\(3.0, 2.0\)"),
        ({"lr_decay_epochs": (2.0, 2.0)}, r"optim.lr_decay_epochs=\(2.0, 2.0\)"),
        ({"warmup_epochs": 2.0}, "optim.warmup_epochs=2.0"),
        ({"warmup_epochs": -1.0}, "optim.warmup_epochs=-1.0"),
        ({"lr_decay_factor": 0.0}, "optim.lr_decay_factor=0.0"),
        ({"lr_decay_factor": 1.5}, "optim.lr_decay_factor=1.5"),
        ({"peak": 0.0}, "optim.learning_rate=0.0"),
        ({"peak": float("nan")}, "optim.learning_rate=nan"),
    ],
)
def test_lr_schedule_rejects_field(changes, message):
    fields = {
        "peak": 1e-3,
        "steps_per_epoch": 10,
        "warmup_epochs": 0.0,
        "lr_decay_epochs": (2.0,),
        "lr_decay_factor": 0.1,
    }
    with pytest.raises(UserError, match=message):
        lr_schedule(**(fields | changes))
