"""Can the network learn at all? Drives 32 photos to below 2 mm with configs/resnet18.py.

    python -m benchmarks.overfit

Trains on the fixed evaluation crops of 32 photos of the full synthetic recipe, without chance, and
scores the same photos with the network as it is used (running BatchNorm statistics).
"""

import json
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax
from absl import app, flags

from configs import resnet18
from m3dhmr_jax.builders import create_network
from m3dhmr_jax.data import pipeline
from m3dhmr_jax.data.augment import AugmentConfig
from m3dhmr_jax.data.synthetic import FULL, write_dataset
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import make_eval_step
from m3dhmr_jax.metrics import scores
from m3dhmr_jax.step import Objective, first_state, make_train_step
from m3dhmr_jax.types import Batch, Config
from tfds_freihand.prepare import prepare

PHOTOS = 32
GOAL_MM = 2.0
STEPS = flags.DEFINE_integer("steps", 600, "Steps at most.")
BATCH = flags.DEFINE_integer("batch_size", 8, "Photos per step.")
LOOK_EVERY = 25


def photos() -> Batch:
    """32 synthetic photos; the box makes the training crop the evaluation's square of 130 px."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        write_dataset(out / "photos", PHOTOS, 1, seed=0, workers=2, recipe=FULL)
        data = prepare(out / "photos", out / "prepared")
        batch = next(pipeline.eval_batches(data, PHOTOS, "train"))
    middle = np.tile(np.array([62, 62, 100, 100], np.float32), (PHOTOS, 1))
    return batch._replace(bbox_px=middle)


def main(_) -> None:
    config: Config = resnet18.get_config()
    hand = load_builtin()
    network = create_network(config, hand)
    still = AugmentConfig(
        size=network.image_size,
        scale_jitter=0.0,
        turn_probability=0.0,
        shift=0.0,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
    )
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, STEPS.value))
    objective = Objective(dict(config.loss.weights))
    step = make_train_step(network.graphdef, hand.faces, optimizer, objective, still, 0.0)
    step = jax.jit(step, donate_argnums=0)
    evaluate = make_eval_step(network.eval_graphdef, hand.joint_regressor, network.image_size)
    state = first_state(network.params, network.stats, optimizer, 0.0)
    everything, rng, start = photos(), np.random.default_rng(0), time.perf_counter()
    result = {}
    for number in range(1, STEPS.value + 1):
        rows = rng.choice(PHOTOS, BATCH.value, replace=False)
        state, terms = step(state, Batch(*(x[rows] for x in everything)), jax.random.key(0))
        if number % LOOK_EVERY == 0:
            result = scores(evaluate(state.params, state.stats, everything))
            minutes = (time.perf_counter() - start) / 60
            line = {"step": number, "minutes": round(minutes, 1)}
            line |= {name: round(result[name], 2) for name in ("pa_mpvpe_mm", "mpvpe_mm")}
            line |= {name: round(float(term), 3) for name, term in terms.items()}
            print(json.dumps(line), flush=True)
            if result["pa_mpvpe_mm"] < GOAL_MM:
                print(f"below {GOAL_MM} mm after {number} steps")
                return
    raise SystemExit(f"PA-MPVPE {result['pa_mpvpe_mm']:.2f} mm after {STEPS.value} steps")


if __name__ == "__main__":
    app.run(main)
