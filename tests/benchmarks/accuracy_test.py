"""The comparison of systems, on tiny networks and a few images."""

import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import accuracy
from m3dhmr_jax.builders import load_hand
from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.tasks import create_task

pytestmark = pytest.mark.long

TINY = {
    "batch_size": 2,
    "epochs": 2.0,
    "optim.lr_decay_epochs": (1.0,),
    "eval.batch_size": 3,
    "model.image_size": 32,
    "model.blocks": (1, 1, 1, 1),
    "model.width": 4,
    "model.encoding": 4,
    "model.channels": (4, 4, 4, 4),
    "model.kernels": 2,
    "model.spiral_length": 2,
    "model.roi_length": 2,
    "model.roi_dilation": 1,
    "loss.consistency_start_epoch": 1.0,
}


def shrink(config):
    config.update_from_flattened_dict(TINY)


def test_accuracy_imports_no_loader():
    loaders = {"grain", "tensorflow_datasets", "array_record"}
    code = f"import sys, benchmarks.accuracy; assert not {loaders} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compared_systems_share_one_backbone():
    configs = [accuracy.load_config(system.config) for system in accuracy.COMPARED]
    assert len(configs) == 5
    assert {(c.model.backbone, c.model.blocks) for c in configs} == {("resnet", (2, 2, 2, 2))}
    assert {c.optim.learning_rate for c in configs} == {1e-3}


def test_read_pairs_images_with_their_labels(freihand_folder):
    images = accuracy.read(freihand_folder, "train")
    labels = freihand.read_annotations(freihand_folder, "train")
    np.testing.assert_array_equal(images.verts_m, labels.verts_m)
    assert images.image.shape == (5, 224, 224, 3)
    mask = freihand_folder / "training" / "mask" / "00000003.jpg"
    np.testing.assert_array_equal(images.bbox_px[3], freihand.mask_box_px(mask))
    test = accuracy.read(freihand_folder, "test")
    assert test.bbox_px.tolist() == 7 * [[47, 47, 130, 130]]
    simplejpeg = pytest.importorskip("simplejpeg")
    path = freihand_folder / "evaluation" / "rgb" / "00000006.jpg"
    off = test.image[6].astype(int) - simplejpeg.decode_jpeg(path.read_bytes())
    assert np.abs(off).mean() < 1


def test_shuffled_batches_visit_each_image_once_per_epoch():
    first, second, other = (
        np.stack(list(itertools.islice(accuracy.shuffled_batches(7, 3, seed), 4)))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    for epoch in (first[:2], first[2:]):
        assert len(set(epoch.ravel().tolist())) == 6


def test_compare_trains_scores_and_records_every_system(tmp_path, monkeypatch, hand_batch):
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    systems = [accuracy.COMPARED[0], accuracy.COMPARED[3]]
    lines = accuracy.compare(systems, (hand_batch, hand_batch), steps=2, seed=3, adapt=shrink)
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines
    assert [line["config"] for line in lines] == [system.config for system in systems]
    for line in lines:
        assert line["seed"] == 3
        assert line["train_images"] == line["test_images"] == 4
        assert all(np.isfinite(line[name]) for name in accuracy.REPORTED_METRICS)
    assert lines[0]["pa_mpjpe_mm"] != lines[1]["pa_mpjpe_mm"]


@pytest.mark.parametrize(("steps", "images", "value"), [(1, 4, "steps=1"), (2, 1, "batch_size=2")])
def test_train_rejects_too_few_steps_or_images(hand_batch, steps, images, value):
    config = accuracy.load_config("configs/resnet18.py")
    shrink(config)
    task = create_task(config, load_hand(config))
    few = jax.tree.map(lambda x: x[:images], hand_batch)
    with pytest.raises(UserError, match=value):
        accuracy.train(config, task, few, steps)


def test_render_makes_both_splits():
    training, test = accuracy.render(2, 1, seed=0)
    assert training.image.shape == (2, 224, 224, 3)
    assert test.image.shape == (1, 224, 224, 3)
    for images in (training, test):
        projected = np.einsum("bij,bnj->bni", images.intrinsics, images.joints_m)
        landmarks_px = projected[..., :2] / projected[..., 2:]
        assert (landmarks_px > 0).all()
        assert (landmarks_px < 224).all()
    inside = training.bbox_px[:, :2] + training.bbox_px[:, 2:] / 2
    assert np.abs(inside - 112).max() < 50


def test_main_takes_a_rendered_folder_and_some_systems(freihand_folder, monkeypatch):
    seen = []

    def compare(systems, images, steps, seed, adapt):
        config = accuracy.load_config(systems[0].config)
        adapt(config)
        seen.append(([s.name for s in systems], [len(i.index) for i in images], steps, config))
        return []

    monkeypatch.setattr(accuracy, "compare", compare)
    chosen = ["--system", "M3DHMR", "--system", "Baseline", "--compute_dtype", "bfloat16"]
    accuracy.main(["--images", str(freihand_folder), "--steps", "7", *chosen])
    ((names, sizes, steps, config),) = seen
    assert (names, steps) == (["Baseline", "M3DHMR"], 7)
    assert sizes == [5, 7]
    assert config.model.compute_dtype == "bfloat16"
