import json
import shutil
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
import simplejpeg

from m3dhmr_jax.data import freihand, loader
from m3dhmr_jax.errors import UserError
from tfds_freihand.prepare import prepare


@pytest.fixture(scope="session")
def dataset_dir(freihand_folder, tmp_path_factory):
    return prepare(freihand_folder, tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def corrupted_dir(freihand_folder, tmp_path):
    """A dataset in which training image 2 is not a JPEG and image 7 is truncated."""
    folder = shutil.copytree(freihand_folder, tmp_path / "set")
    (folder / "training/rgb/00000002.jpg").write_bytes(b"not an image")
    truncated = folder / "training/rgb/00000007.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-300])
    return prepare(folder, tmp_path / "tfds")


def take(batches, n):
    return [next(batches) for _ in range(n)]


def assert_same(these, those):
    for this, that in zip(these, those, strict=True):
        for name, a, b in zip(this._fields, this, that, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def joined(parts):
    """The batches of several processes, concatenated."""
    return [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*parts, strict=True)
    ]


def test_train_batches_pair_images_with_labels(dataset_dir, freihand_folder):
    batch = next(loader.train_batches(dataset_dir, 6, seed=0))
    labels = freihand.read_annotations(freihand_folder, "train")
    assert batch.image.shape == (6, 224, 224, 3)
    assert batch.valid.all()
    for row, index in enumerate(batch.index.tolist()):
        path = freihand_folder / freihand.image_name("train", index)
        np.testing.assert_array_equal(batch.image[row], simplejpeg.decode_jpeg(path.read_bytes()))
        np.testing.assert_array_equal(batch.intrinsics[row], labels.intrinsics[index % 5])
        np.testing.assert_array_equal(batch.joints_m[row], labels.joints_m[index % 5])
        np.testing.assert_array_equal(batch.verts_m[row], labels.verts_m[index % 5])
        np.testing.assert_allclose(
            batch.bbox_px[row], [60, 40 + index % 5, 90, 100 - index % 5], atol=1
        )


@pytest.fixture(scope="session")
def extended_dir(freihand_folder, tmp_path_factory):
    """A dataset with coverage and quality: annotation i has i + 1 rows covered."""
    folder = tmp_path_factory.mktemp("extended") / "set"
    shutil.copytree(freihand_folder, folder)
    (folder / "training/coverage").mkdir()
    for i in range(5):
        coverage = np.zeros((224, 224), np.uint8)
        coverage[: i + 1] = 255
        cv2.imwrite(str(folder / f"training/coverage/{i:08d}.png"), coverage)
    quality = [0.1, 0.2, 0.5, 0.75, 1.0]
    (folder / "training_quality.json").write_text(json.dumps(quality))
    return prepare(folder, tmp_path_factory.mktemp("tfds"))


def test_train_batches_have_coverage_and_quality(extended_dir):
    batch = next(loader.train_batches(extended_dir, 10, seed=0, coverage=True))
    annotation = batch.index % 5
    np.testing.assert_allclose(batch.quality, np.array([0.1, 0.2, 0.5, 0.75, 1.0])[annotation])
    assert batch.coverage.dtype == np.uint8
    np.testing.assert_array_equal((batch.coverage == 255).sum((1, 2)), 224 * (annotation + 1))
    assert next(loader.train_batches(extended_dir, 10, seed=0)).coverage is None


def test_coverage_and_quality_default_to_complete(dataset_dir, monkeypatch):
    """Also for datasets that were prepared before these features existed."""
    batch = next(loader.train_batches(dataset_dir, 4, seed=0, coverage=True))
    assert (batch.quality == 1).all()
    assert (batch.coverage == 255).all()
    records = [dict(record) for record in loader.open_split(dataset_dir, "train")]
    for record in records:
        del record["coverage"], record["quality"]
    monkeypatch.setattr(loader, "open_split", lambda *_: records)
    older = next(loader.train_batches(dataset_dir, 4, seed=0, coverage=True))
    assert_same([older], [batch])


def test_train_batches_reject_coverage_of_another_size(dataset_dir, monkeypatch):
    small = cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()
    for bad in (small, b"no image"):
        records = [{**r, "coverage": bad} for r in loader.open_split(dataset_dir, "train")]
        with monkeypatch.context() as patch:
            patch.setattr(loader, "open_split", lambda *_, records=records: records)
            with pytest.raises(UserError, match=r"training/rgb/\d+\.jpg: its coverage"):
                next(loader.train_batches(dataset_dir, 4, seed=0, coverage=True))


def mixed_batches(dataset_dir, extended_dir, share=0.3, **options):
    mix = [(extended_dir, share)]
    return loader.train_batches(dataset_dir, 5, 1, mix=mix, **options)


def test_train_batches_mix_datasets_by_their_shares(dataset_dir, extended_dir):
    """Each dataset completely before anything of it comes again."""
    batches = take(mixed_batches(dataset_dir, extended_dir), 40)
    index = np.concatenate([batch.index for batch in batches])
    added = index >= 10
    assert abs(added.mean() - 0.3) < 0.01
    for own in (index[~added], index[added]):
        rounds = own[: len(own) // 10 * 10].reshape(-1, 10)
        assert all(len(set(each.tolist())) == 10 for each in rounds)
    quality = np.concatenate([batch.quality for batch in batches])
    assert (quality[~added] == 1).all()
    np.testing.assert_allclose(
        quality[added], np.array([0.1, 0.2, 0.5, 0.75, 1.0])[(index[added] - 10) % 5]
    )


def test_mixed_batches_resume_and_split_among_processes(dataset_dir, extended_dir):
    batches = take(mixed_batches(dataset_dir, extended_dir), 9)
    resumed = mixed_batches(dataset_dir, extended_dir, start_step=4, threads=5)
    assert_same(take(resumed, 5), batches[4:])
    parts = [
        take(mixed_batches(dataset_dir, extended_dir, process_index=i, process_count=5), 9)
        for i in range(5)
    ]
    assert_same(joined(parts), batches)


def test_mixed_batches_name_the_dataset_of_an_unreadable_image(dataset_dir, corrupted_dir):
    batches = loader.train_batches(dataset_dir, 5, 0, mix=[(corrupted_dir, 0.5)])
    with pytest.raises(UserError, match=rf"{corrupted_dir}: training/rgb/0000000[27]\.jpg"):
        take(batches, 5)


def test_train_batches_shuffle_each_epoch(dataset_dir):
    batches = take(loader.train_batches(dataset_dir, 5, seed=3), 6)
    epochs = np.concatenate([batch.index for batch in batches]).reshape(3, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = take(loader.train_batches(dataset_dir, 5, seed=4), 2)
    assert tuple(np.concatenate([batch.index for batch in other])) != tuple(epochs[0])


@pytest.mark.parametrize("start_step", [1, 3, 8])
def test_train_batches_resume_at_start_step(dataset_dir, start_step):
    batches = take(loader.train_batches(dataset_dir, 4, seed=1), 10)
    resumed = loader.train_batches(dataset_dir, 4, seed=1, start_step=start_step, threads=5)
    assert_same(take(resumed, 10 - start_step), batches[start_step:])


def test_train_batches_split_rows_among_processes(dataset_dir):
    batches = take(loader.train_batches(dataset_dir, 6, seed=1), 3)
    parts = [
        take(loader.train_batches(dataset_dir, 6, 1, process_index=i, process_count=3), 3)
        for i in range(3)
    ]
    assert_same(joined(parts), batches)


WITH_WORKERS = """
import sys
from pathlib import Path
from m3dhmr_jax.data import loader
if __name__ == "__main__":
    batches = loader.train_batches(Path(sys.argv[1]), 4, 1, workers=1)
    print([next(batches).index.tolist() for _ in range(3)])
"""


@pytest.mark.long
def test_train_batches_do_not_depend_on_workers(dataset_dir, tmp_path):
    script = tmp_path / "with_workers.py"
    script.write_text(WITH_WORKERS)
    run = subprocess.run(
        [sys.executable, script, dataset_dir], capture_output=True, text=True, check=True
    )
    alone = take(loader.train_batches(dataset_dir, 4, 1), 3)
    assert run.stdout.strip() == str([batch.index.tolist() for batch in alone])


def test_eval_batches_are_in_order_and_padded(dataset_dir):
    batches = list(loader.eval_batches(dataset_dir, 4))
    assert [batch.valid.tolist() for batch in batches] == [[True] * 4, [True] * 3 + [False]]
    index = np.concatenate([batch.index[batch.valid] for batch in batches])
    np.testing.assert_array_equal(index, np.arange(7))
    assert all(len(each) == 4 for each in jax.tree.leaves(batches))
    assert loader.size(dataset_dir, "test") == 7


def test_eval_batches_split_rows_among_processes(dataset_dir):
    parts = [
        list(loader.eval_batches(dataset_dir, 4, process_index=i, process_count=2)) for i in (0, 1)
    ]
    assert_same(joined(parts), list(loader.eval_batches(dataset_dir, 4)))


@pytest.mark.parametrize("threads", [1, 4])
def test_train_batches_name_unreadable_image(corrupted_dir, threads):
    batches = loader.train_batches(corrupted_dir, 5, seed=0, threads=threads)
    with pytest.raises(UserError, match=r"training/rgb/0000000[27]\.jpg"):
        take(batches, 2)


def test_train_batches_skip_unreadable_images(corrupted_dir):
    batches = loader.train_batches(corrupted_dir, 5, seed=0, skip_unreadable=True)
    for _ in range(2):
        for batch in take(batches, 2):
            bad = np.isin(batch.index, [2, 7])
            np.testing.assert_array_equal(batch.valid, ~bad)
            assert not batch.image[bad].any()
            assert batch.image[~bad].any(axis=(1, 2, 3)).all()
        assert batches.skipped == {2, 7}


def test_train_batches_reject_images_of_two_sizes(freihand_folder, tmp_path):
    folder = shutil.copytree(freihand_folder, tmp_path / "set")
    small = simplejpeg.encode_jpeg(np.zeros((100, 120, 3), np.uint8))
    (folder / "training/rgb/00000002.jpg").write_bytes(small)
    dataset_dir = prepare(folder, tmp_path / "tfds")
    with pytest.raises(UserError, match=r"\(100, 120, 3\), \(224, 224, 3\)"):
        next(loader.train_batches(dataset_dir, 10, seed=0))


def test_batches_reject_impossible_batch_size(dataset_dir):
    with pytest.raises(UserError, match="batch_size=11"):
        loader.train_batches(dataset_dir, 11, 0)
    with pytest.raises(UserError, match="batch_size=4"):
        loader.train_batches(dataset_dir, 4, 0, process_count=3)
    with pytest.raises(UserError, match="batch_size=0"):
        loader.eval_batches(dataset_dir, 0)


def test_size_rejects_missing_and_corrupted_dataset(dataset_dir, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        loader.size(tmp_path, "train")
    copy = shutil.copytree(dataset_dir, tmp_path / "freihand" / "1.0.0")
    shard = next(copy.glob("*train*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=str(copy)):
        loader.size(copy, "train")
    shard.unlink()
    with pytest.raises(UserError, match=str(copy)):
        loader.size(copy, "train")


def test_sample_labels_are_evenly_spaced(monkeypatch, tmp_path):
    hands = [{"verts": np.full((778, 3), i), "K": np.full((3, 3), -i)} for i in range(100)]
    monkeypatch.setattr(loader, "open_split", lambda data, split: hands)
    verts, intrinsics = loader.sample_labels(tmp_path, ("verts", "K"), 5)
    np.testing.assert_array_equal(verts[:, 0, 0], [0, 24, 49, 74, 99])
    np.testing.assert_array_equal(intrinsics[:, 0, 0], [0, -24, -49, -74, -99])
