"""The comparison of systems, on networks and photos that say nothing."""

import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import accuracy
from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.data import freihand

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


def test_it_needs_no_loader():
    loaders = {"grain", "tensorflow_datasets", "array_record"}
    code = f"import sys, benchmarks.accuracy; assert not {loaders} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_systems_are_table_1_and_mobrecon_with_one_backbone():
    configs = [accuracy.load_config(system.config) for system in accuracy.COMPARED]
    assert len(configs) == 5
    assert {(c.model.backbone, c.model.blocks) for c in configs} == {("resnet", (2, 2, 2, 2))}
    assert {c.optim.learning_rate for c in configs} == {1e-3}


def test_photos_are_read_with_their_own_labels(freihand_folder):
    photos = accuracy.read(freihand_folder, "train")
    labels = freihand.read_annotations(freihand_folder, "train")
    np.testing.assert_array_equal(photos.verts_m, labels.verts_m)
    assert photos.image.shape == (5, 224, 224, 3)
    mask = freihand_folder / "training" / "mask" / "00000003.jpg"
    np.testing.assert_array_equal(photos.bbox_px[3], freihand.mask_box_px(mask))
    test = accuracy.read(freihand_folder, "test")
    assert test.bbox_px.tolist() == 7 * [[47, 47, 130, 130]]
    simplejpeg = pytest.importorskip("simplejpeg")
    path = freihand_folder / "evaluation" / "rgb" / "00000006.jpg"
    off = test.image[6].astype(int) - simplejpeg.decode_jpeg(path.read_bytes())
    assert np.abs(off).mean() < 1


def test_each_photo_is_seen_once_per_epoch_in_an_order_of_the_seed():
    first, second, other = (
        np.stack(list(itertools.islice(accuracy.orders(7, 3, seed), 4))) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    for epoch in (first[:2], first[2:]):
        assert len(set(epoch.ravel().tolist())) == 6


def test_one_call_trains_scores_and_records_every_system(tmp_path, monkeypatch, hand_batch):
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    systems = [accuracy.COMPARED[0], accuracy.COMPARED[3]]
    lines = accuracy.compare(systems, (hand_batch, hand_batch), steps=2, seed=3, adapt=shrink)
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines
    assert [line["config"] for line in lines] == [system.config for system in systems]
    for line in lines:
        assert line["seed"] == 3
        assert line["train_photos"] == line["test_photos"] == 4
        assert all(np.isfinite(line[name]) for name in accuracy.REPORTED_METRICS)
    assert lines[0]["pa_mpjpe_mm"] != lines[1]["pa_mpjpe_mm"]


@pytest.mark.parametrize(
    ("steps", "photos", "message"),
    [(1, 4, "steps=1 must be at least epochs=2"), (2, 1, "1 photos are less than batch_size=2")],
)
def test_too_short_a_run_and_too_few_photos_are_refused(hand_batch, steps, photos, message):
    config = accuracy.load_config("configs/resnet18.py")
    shrink(config)
    hand = load_hand(config)
    few = jax.tree.map(lambda x: x[:photos], hand_batch)
    with pytest.raises(ValueError, match=message):
        accuracy.train(config, create_network(config, hand), hand, few, steps)


def test_the_set_is_rendered_and_kept():
    training, test = accuracy.render(2, 1, seed=0)
    assert training.image.shape == (2, 224, 224, 3)
    assert test.image.shape == (1, 224, 224, 3)
    for photos in (training, test):
        seen = np.einsum("bij,bnj->bni", photos.intrinsics, photos.joints_m)
        landmarks_px = seen[..., :2] / seen[..., 2:]
        assert (landmarks_px > 0).all()
        assert (landmarks_px < 224).all()
    inside = training.bbox_px[:, :2] + training.bbox_px[:, 2:] / 2
    assert np.abs(inside - 112).max() < 50


def test_a_call_may_take_a_rendered_set_and_some_systems(freihand_folder, monkeypatch):
    seen = []

    def compare(systems, photos, steps, seed, adapt):
        config = accuracy.load_config(systems[0].config)
        adapt(config)
        seen.append(([s.name for s in systems], [len(p.index) for p in photos], steps, config))
        return []

    monkeypatch.setattr(accuracy, "compare", compare)
    chosen = ["--system", "M3DHMR", "--system", "Baseline", "--compute_dtype", "bfloat16"]
    accuracy.main(["--photos", str(freihand_folder), "--steps", "7", *chosen])
    ((names, sizes, steps, config),) = seen
    assert (names, steps) == (["Baseline", "M3DHMR"], 7)
    assert sizes == [5, 7]
    assert config.model.compute_dtype == "bfloat16"
