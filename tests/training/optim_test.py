import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.training.optim import adam, learning_rate, update_ema


def rates(schedule, *steps):
    return [float(schedule(step)) for step in steps]


def test_the_papers_rate_falls_to_a_tenth_at_epoch_30():
    schedule = learning_rate(1e-3, 100, 0.0, (30.0,), 0.1)
    got = rates(schedule, 0, 1, 2999, 3000, 3001, 3799)
    np.testing.assert_allclose(got, [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4], rtol=1e-6)


def test_it_starts_low_and_falls_at_each_drop_counted_from_the_beginning():
    schedule = learning_rate(0.8, 10, 0.4, (2.0, 3.5), 0.5)  # Four steps of warm-up.
    got = rates(schedule, 0, 1, 2, 3, 4, 19, 20, 34, 35, 99)
    want = [0.2, 0.35, 0.5, 0.65, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_without_drops_it_stays():
    np.testing.assert_allclose(rates(learning_rate(1.0, 10, 0.0, (), 0.5), 0, 500), 1, rtol=1e-6)


def test_the_first_step_of_adam_is_one_rate_long():
    optimizer = adam(learning_rate(0.1, 10, 0.0, (), 0.5), np.inf)
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    grads = {"a": jnp.array([5.0, -0.01]), "b": jnp.array(0.0)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"], [-0.1, 0.1], rtol=1e-4)
    assert updates["b"] == 0


def test_a_huge_first_gradient_does_not_shorten_the_steps_after_it():
    def second_step(clip_norm):
        optimizer = adam(learning_rate(0.1, 10, 0.0, (), 0.5), clip_norm)
        params = jnp.zeros(1)
        _, state = optimizer.update(jnp.full(1, 1000.0), optimizer.init(params), params)
        updates, _ = optimizer.update(jnp.full(1, -1.0), state, params)
        return float(updates[0])

    # By hand: moments of -1 after +2, bias taken out, (0.9 * 0.1 * 2 - 0.1) / (1 - 0.9**2), and
    # (0.999 * 0.001 * 4 + 0.001) / (1 - 0.999**2).
    want = -0.1 * (0.08 / 0.19) / np.sqrt(0.004996 / 0.001999)
    np.testing.assert_allclose(second_step(2.0), want, rtol=1e-4)
    assert second_step(np.inf) < 1.2 * want  # Unclipped, the first gradient still rules.


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.nan])
def test_a_clip_that_leaves_no_gradient_is_refused(clip_norm):
    with pytest.raises(ValueError, match=f"optim.clip_norm={clip_norm} must be positive"):
        adam(learning_rate(0.1, 10, 0.0, (), 0.5), clip_norm)


def test_the_running_mean_keeps_the_share_of_its_decay():
    mean = update_ema({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([2.0, 10.0])}, 0.9)
    np.testing.assert_allclose(mean["w"], [1.1, 1.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_decay_epochs": (3.0, 2.0)}, r"optim.lr_decay_epochs=\(3.0, 2.0\) must rise"),
        ({"lr_decay_epochs": (2.0, 2.0)}, r"optim.lr_decay_epochs=\(2.0, 2.0\) must rise"),
        ({"warmup_epochs": 2.0}, "must rise and lie after optim.warmup_epochs=2.0"),
        ({"warmup_epochs": -1.0}, "optim.warmup_epochs=-1.0 must be"),
        ({"lr_decay_factor": 0.0}, r"optim.lr_decay_factor=0.0 must lie in \(0, 1\]"),
        ({"lr_decay_factor": 1.5}, "optim.lr_decay_factor=1.5 must lie"),
        ({"peak": 0.0}, "optim.learning_rate=0.0 must be positive"),
        ({"peak": float("nan")}, "optim.learning_rate=nan must be positive"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(changes, message):
    fields = {
        "peak": 1e-3,
        "steps_per_epoch": 10,
        "warmup_epochs": 0.0,
        "lr_decay_epochs": (2.0,),
        "lr_decay_factor": 0.1,
    }
    with pytest.raises(ValueError, match=message):
        learning_rate(**(fields | changes))
