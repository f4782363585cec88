"""Seconds to evaluate as many samples as FreiHAND's evaluation set has, images in memory.

    python -m benchmarks.evaluation [configs/resnet34.py]

Three parts, as in an evaluation: predictions in camera space (untrained network, images of noise);
errors, computed on the device; scores of all errors, on the host. The errors are those of true
hands with noise, because aligning the predictions of an untrained network takes another time.
"""

import itertools
import sys

import jax
import numpy as np

from benchmarks.measure import interleaved, record, table
from benchmarks.scoring import N_SAMPLES, make_samples
from benchmarks.systems import load_config
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.inference import make_predict_step
from m3dhmr_jax.metrics.freihand import batch_metrics, scores


def main(name: str = "configs/resnet18.py", *, n: int = N_SAMPLES) -> None:
    config = load_config(name)
    hand = load_hand(config)
    network = create_network(config, hand)
    predict_step = make_predict_step(
        network.eval_graphdef, hand.joint_regressor, network.image_size
    )
    size = config.eval.batch_size
    count = -(-n // size)
    samples = make_samples(count * size)  # The last batch is padded, as in evaluation.
    rows = itertools.cycle(np.arange(count * size).reshape(count, size))
    batch, errors = fake_batch(size), []

    def predict() -> object:
        return predict_step(network.params, network.stats, batch)

    def compute_errors() -> object:
        hands = [each[here].astype(np.float32) for here in [next(rows)] for each in samples]
        joints_m, verts_m, pred_joints_m, pred_verts_m = hands
        errors.append(batch_metrics(pred_joints_m, pred_verts_m, joints_m, verts_m))
        return errors[-1]

    timings = interleaved({"predictions": predict, "errors": compute_errors}, count, warm_up=1)
    kept = jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *errors[1:])
    timings |= interleaved({"scores": lambda: scores(kept)}, rounds=3, warm_up=1)
    seconds = {
        "predictions": count * timings["predictions"].median_ms / 1000,
        "errors": count * timings["errors"].median_ms / 1000,
        "scores": timings["scores"].median_ms / 1000,
    }
    total_s = sum(seconds.values())
    rows_shown = [[part, s, n / s] for part, s in (seconds | {"all": total_s}).items()]
    print(table([f"{n} samples", "s", "samples/s"], rows_shown))
    record("evaluation", timings, config=name, samples=n, batch=size, seconds=round(total_s, 3))


if __name__ == "__main__":
    main(*sys.argv[1:])
