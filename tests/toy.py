"""A network that compiles in no time, and a task and data for it: for tests of steps and runs."""

import functools
import itertools
from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from m3dhmr_jax import losses
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.inference import make_landmark_step
from m3dhmr_jax.metrics.landmarks import landmark_errors_px, landmark_scores
from m3dhmr_jax.metrics.reported import REPORTED_LANDMARK_METRICS
from m3dhmr_jax.models.functional import functional_network
from m3dhmr_jax.tasks import Baseline, Task
from m3dhmr_jax.types import MESH_UNIT_M, Prediction

CROP_PX = 32
N_EXAMPLES = 8


class ToyNetwork(nnx.Module):
    """An enlarged hand at rest, moved by the crop's mean colour.

    No loss term is near its minimum, where the sign of an error is a matter of rounding.
    Examples do not affect each other. The statistic counts the calls.
    """

    def __init__(self, hand):
        verts_m = hand.verts_m - (hand.joint_regressor @ hand.verts_m)[:1]
        self.verts = nnx.Param(jnp.asarray(1.3 * verts_m / MESH_UNIT_M, jnp.float32))
        self.verts_kernel = nnx.Param(jnp.linspace(-0.1, 0.1, 9).reshape(3, 3))
        self.landmarks_kernel = nnx.Param(jnp.linspace(-0.5, 0.5, 3 * 42).reshape(3, 42))
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def set_view(self, use_running_average: bool = False):
        """Inference is as training."""

    def __call__(self, image):
        self.calls[...] = self.calls[...] + 1
        colour = image.mean(axis=(1, 2))
        verts = self.verts[...][None] + (colour @ self.verts_kernel[...])[:, None]
        landmarks_01 = 0.5 + (colour @ self.landmarks_kernel[...]).reshape(-1, 21, 2)
        return Prediction(verts, landmarks_01)


def toy_network(hand, *, abstract=False):
    return functional_network(
        lambda: ToyNetwork(hand), abstract=abstract, image_size=CROP_PX, compatibility={"toy": 1}
    )


def toy_task(config, hand, *, abstract=False):
    """Trains meshes and scores landmarks, which is fast to compile."""
    del config
    network = toy_network(hand, abstract=abstract)
    return Task(
        network=network,
        loss_terms_fn=functools.partial(losses.two_view_terms, faces=hand.faces, crop_px=CROP_PX),
        start_epoch={"con3d": 1.0, "con2d": 1.0},
        predict_step=make_landmark_step(network.eval_graphdef, CROP_PX),
        error_fn=landmark_errors_px,
        scores=landmark_scores,
        reported_metrics=REPORTED_LANDMARK_METRICS,
        best_metric="landmark_error_px",
        baseline=Baseline("none", (), lambda data: None),
        predicts_meshes=False,
    )


class ToyBatches:
    """An endless stream of batches that depend on the step alone, as the loader's do."""

    def __init__(self, batch_size, start_step):
        self.skipped = set()
        self._batches = (fake_batch(batch_size, seed=i) for i in itertools.count(start_step))

    def __iter__(self):
        return self._batches

    def close(self):
        self._batches.close()


def use_toy(monkeypatch):
    """Training runs learn the toy task on toy data until the end of the test."""
    from m3dhmr_jax.training import train

    def train_batches(data, batch_size, seed, *, start_step, **_):
        return ToyBatches(batch_size, start_step)

    monkeypatch.setattr(train, "create_task", toy_task)
    monkeypatch.setattr(train, "open_dataset", lambda hand, **_: Path("nowhere"))
    monkeypatch.setattr(train.loader, "size", lambda data, split: N_EXAMPLES)
    monkeypatch.setattr(train.loader, "train_batches", train_batches)
    monkeypatch.setattr(train, "test_set_batches", lambda config, data: [fake_batch(4, seed=99)])
