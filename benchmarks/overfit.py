"""Can the network learn at all? Drives 32 photos to below 2 mm with configs/resnet18.py.

    python -m benchmarks.overfit --workdir=runs/overfit

On the fixed evaluation crops of 32 photos of the full synthetic recipe, without chance, in two
stages:

1. The whole network from random parameters, at a steady rate.
2. The image side rests: with BatchNorm's running statistics, as in use, its answers to the 32
   photos are computed once, and the decoder alone goes on, at a rate that falls to 0. A step costs
   a fifth, and the fine structure of the mesh needs a thousand of them.

Scored are the same photos, from pixels, with the whole network as it is used.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import nnx
from jaxtyping import Array, Float

from configs import resnet18
from m3dhmr_jax import losses
from m3dhmr_jax.builders import create_network
from m3dhmr_jax.checkpoints.weights import save_weights
from m3dhmr_jax.data import loader
from m3dhmr_jax.data.augment import eval_view
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.inference import hand_errors, make_predict_step
from m3dhmr_jax.metrics.freihand import scores
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.models.layers import sample_at
from m3dhmr_jax.synthetic import FULL, write_dataset
from m3dhmr_jax.training import optim
from m3dhmr_jax.types import Batch, Config, Prediction, View
from tfds_freihand.prepare import prepare

PHOTOS = 32
GOAL_MM = 2.0
BATCH = 8  # Photos per step, in both stages: steps count more than clean gradients.
WHOLE_RATE, DECODER_RATE = 2e-3, 3e-3  # Above the config's, which is for 38 epochs.
WHOLE_WARMUP, DECODER_WARMUP = 50, 20
LOOK_EVERY = 100
WORKDIR = flags.DEFINE_string("workdir", "runs/overfit", "For the learned weights.")
WHOLE_STEPS = flags.DEFINE_integer("whole_steps", 200, "Steps of stage 1.")
DECODER_STEPS = flags.DEFINE_integer("decoder_steps", 4000, "Steps of stage 2.")


def photos() -> Batch:
    """32 synthetic photos."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        write_dataset(out / "photos", PHOTOS, 1, seed=0, workers=2, recipe=FULL)
        data = prepare(out / "photos", out / "prepared")
        return next(loader.eval_batches(data, PHOTOS, "train"))


def rows() -> Iterator[np.ndarray]:
    """Endless batches of indices, each photo once per epoch."""
    rng = np.random.default_rng(0)
    while True:
        yield from rng.permutation(PHOTOS).reshape(-1, BATCH)


def make_loss(config: Config, network: Network, faces: np.ndarray):
    """The config's loss; both views of a photo that is not augmented are one picture.

    So the second views are other photos, and nothing asks them to agree.
    """
    weights = dict(config.loss.weights) | {"con3d": 0.0, "con2d": 0.0}
    everyone = np.ones(BATCH // 2, bool)

    def loss(prediction: Prediction, view: View) -> tuple[Float[Array, ""], dict[str, Any]]:
        both = [jnp.split(x, 2) for x in prediction]
        pred1, pred2 = (Prediction(*half) for half in zip(*both, strict=True))
        view1, view2 = (View(*half) for half in zip(*(jnp.split(x, 2) for x in view), strict=True))
        terms = losses.two_view_terms(
            pred1, view1, pred2, view2, faces, everyone, network.image_size
        )
        return losses.total(terms, weights), terms

    return loss


def main(_) -> None:
    config: Config = resnet18.get_config()
    workdir = Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    hand = load_builtin()
    network = create_network(config, hand)
    loss = make_loss(config, network, hand.faces)
    predict_step = make_predict_step(
        network.eval_graphdef, hand.joint_regressor, network.image_size
    )
    batch = photos()
    views = jax.jit(lambda batch: eval_view(batch, network.image_size))(batch)
    start = time.perf_counter()

    def look(stage: str, step: int, params: Any, stats: Any, terms: dict[str, Any]) -> float:
        result = scores(hand_errors(predict_step(params, stats, batch), batch))
        line = {"stage": stage, "step": step}
        line |= {"minutes": round((time.perf_counter() - start) / 60, 1)}
        line |= {name: round(result[name], 2) for name in ("pa_mpvpe_mm", "mpvpe_mm")}
        line |= {name: round(float(term), 4) for name, term in terms.items()}
        print(json.dumps(line), flush=True)
        return result["pa_mpvpe_mm"]

    rate = optax.linear_schedule(0.0, WHOLE_RATE, WHOLE_WARMUP)
    optimizer = optim.adam(rate, config.optim.clip_norm)

    def whole_loss(params: Any, stats: Any, view: View):
        model = nnx.merge(network.graphdef, params, stats)
        total, terms = loss(model(view.image), view)
        return total, (terms, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    @jax.jit
    def whole_step(params: Any, stats: Any, opt_state: Any, view: View):
        grads, (terms, stats) = jax.grad(whole_loss, has_aux=True)(params, stats, view)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, terms

    params, stats, opt_state = network.params, network.stats, optimizer.init(network.params)
    for step, some in zip(range(1, WHOLE_STEPS.value + 1), rows(), strict=False):
        view = View(*(x[some] for x in views))
        params, stats, opt_state, terms = whole_step(params, stats, opt_state, view)
        if step % LOOK_EVERY == 0 or step == WHOLE_STEPS.value:
            look("whole", step, params, stats, terms)

    @jax.jit
    def seen(params: Any, stats: Any) -> tuple[Array, Array]:
        model = nnx.merge(network.eval_graphdef, params, stats)
        encoding, maps = model.backbone(views.image)
        landmarks_01 = model.landmarks(maps)
        return sample_at(encoding, landmarks_01), landmarks_01

    pose_features, landmarks_01 = seen(params, stats)
    decoder_graphdef, _ = nnx.split(nnx.merge(network.graphdef, params, stats).decoder)
    rate = optax.warmup_cosine_decay_schedule(0, DECODER_RATE, DECODER_WARMUP, DECODER_STEPS.value)
    optimizer = optim.adam(rate, config.optim.clip_norm)

    def decoder_loss(decoder: Any, some: Array):
        verts = nnx.merge(decoder_graphdef, decoder)(pose_features[some])
        return loss(Prediction(verts, landmarks_01[some]), View(*(x[some] for x in views)))

    @jax.jit
    def decoder_step(decoder: Any, opt_state: Any, some: Array):
        grads, terms = jax.grad(decoder_loss, has_aux=True)(decoder, some)
        updates, opt_state = optimizer.update(grads, opt_state, decoder)
        return optax.apply_updates(decoder, updates), opt_state, terms

    decoder = params["decoder"]
    opt_state, error_mm = optimizer.init(decoder), np.inf
    for step, some in zip(range(1, DECODER_STEPS.value + 1), rows(), strict=False):
        decoder, opt_state, terms = decoder_step(decoder, opt_state, some)
        if step % LOOK_EVERY == 0 or step == DECODER_STEPS.value:
            error_mm = look("decoder", step, params | {"decoder": decoder}, stats, terms)
    save_weights(workdir / "overfit.safetensors", params | {"decoder": decoder}, stats, {})
    if not error_mm < GOAL_MM:
        raise SystemExit(f"PA-MPVPE {error_mm:.2f} mm is not below {GOAL_MM} mm")
    print(f"PA-MPVPE {error_mm:.2f} mm: below {GOAL_MM} mm")


if __name__ == "__main__":
    app.run(main)
