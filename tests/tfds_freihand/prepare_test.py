import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from m3dhmr_jax.data import freihand
from m3dhmr_jax.datasets import prepare_folder
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import DiskFullError
from tests.faults import small_disk
from tfds_freihand import freihand_dataset_builder
from tfds_freihand.prepare import prepare, source_of


@pytest.fixture
def folder(freihand_folder, tmp_path):
    """A copy that a test may corrupt."""
    return shutil.copytree(freihand_folder, tmp_path / "set")


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "tfds"


def records(dataset_dir, split):
    builder = tfds.builder_from_directory(dataset_dir)
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def test_prepare_stores_images_with_their_labels(freihand_folder, data_dir, monkeypatch):
    monkeypatch.setattr(freihand_dataset_builder, "EXAMPLES_PER_SHARD", 4)
    dataset_dir = prepare(freihand_folder, data_dir)
    for split, n_images in (("train", 10), ("test", 7)):
        labels = freihand.read_annotations(freihand_folder, split)
        source = records(dataset_dir, split)
        assert len(source) == n_images
        for i in range(n_images):
            record = source[i]
            row = i % len(labels.joints_m)
            assert record["index"] == i
            path = freihand_folder / freihand.image_name(split, i)
            assert record["image"] == path.read_bytes()
            np.testing.assert_array_equal(record["K"], labels.intrinsics[row])
            np.testing.assert_array_equal(record["xyz"], labels.joints_m[row])
            np.testing.assert_array_equal(record["verts"], labels.verts_m[row])
            assert record["scale"] == labels.scale_m[row]
            box = [60, 40 + row, 90, 100 - row] if split == "train" else [47, 47, 130, 130]
            np.testing.assert_allclose(record["bbox"], box, atol=1)


def add_coverage(folder):
    (folder / "training/coverage").mkdir()
    for i in range(5):
        cv2.imwrite(
            str(folder / f"training/coverage/{i:08d}.png"), np.full((224, 224), i, np.uint8)
        )


def test_prepare_stores_coverage_and_quality_of_each_annotation(folder, data_dir):
    add_coverage(folder)
    (folder / "training_quality.json").write_text("[0.1, 0.2, 0.3, 0.4, 1]")
    dataset_dir = prepare(folder, data_dir)
    train, test = records(dataset_dir, "train"), records(dataset_dir, "test")
    for i in range(10):
        path = folder / f"training/coverage/{i % 5:08d}.png"
        assert train[i]["coverage"] == path.read_bytes()
        assert train[i]["quality"] == np.float32([0.1, 0.2, 0.3, 0.4, 1][i % 5])
    assert test[0]["coverage"] == b""
    assert test[0]["quality"] == 1


def test_prepare_without_coverage_and_quality_stores_none(freihand_folder, data_dir):
    record = records(prepare(freihand_folder, data_dir), "train")[0]
    assert (record["coverage"], record["quality"]) == (b"", 1)


def test_coverage_and_quality_are_part_of_the_content(folder, data_dir):
    before = freihand.fingerprint(folder)
    add_coverage(folder)
    with_coverage = freihand.fingerprint(folder)
    (folder / "training_quality.json").write_text("[1, 1, 1, 1, 1]")
    assert len({before, with_coverage, freihand.fingerprint(folder)}) == 3


@pytest.mark.parametrize("text", ["[1, 1, 0, 1, 1]", "[1, 1, 1.5, 1, 1]", "[1, 1]", "[1, -1"])
def test_prepare_rejects_bad_quality(folder, data_dir, text):
    (folder / "training_quality.json").write_text(text)
    with pytest.raises(UserError, match=r"training_quality\.json"):
        prepare(folder, data_dir)


def test_prepare_rejects_incomplete_coverage(folder, data_dir):
    add_coverage(folder)
    (folder / "training/coverage/00000004.png").unlink()
    with pytest.raises(UserError, match="4 images"):
        prepare(folder, data_dir)
    (folder / "training/coverage/00000001.png").unlink()
    with pytest.raises(UserError, match=r"00000001\.png is missing"):
        prepare(folder, data_dir)


def test_prepare_writes_tfds_metadata(freihand_folder, data_dir):
    info = tfds.builder_from_directory(prepare(freihand_folder, data_dir)).info
    assert info.full_name == "freihand/1.0.0"
    assert "zimmermann2019freihand" in info.citation
    assert info.splits["train"].num_examples == 10
    assert "tensorflow" not in sys.modules
    assert info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def test_source_of_names_the_folder_of_a_dataset(freihand_folder, data_dir):
    dataset_dir = prepare(freihand_folder, data_dir)
    assert source_of(dataset_dir) == str(freihand_folder)
    (dataset_dir / "metadata.json").unlink()
    assert source_of(dataset_dir) == ""


def test_prepare_finds_existing_dataset(freihand_folder, data_dir):
    dataset_dir = prepare(freihand_folder, data_dir)
    written = {path: path.stat().st_mtime_ns for path in dataset_dir.iterdir()}
    assert prepare(freihand_folder, data_dir) == dataset_dir
    assert prepare(None, data_dir) == dataset_dir
    assert {path: path.stat().st_mtime_ns for path in dataset_dir.iterdir()} == written


def test_concurrent_prepare_writes_one_dataset(freihand_folder, data_dir):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(freihand_folder, data_dir), range(4)))
    assert len(set(found)) == 1
    assert len(records(found[0], "train")) == 10


def test_prepare_rejects_other_content(folder, data_dir):
    prepare(folder, data_dir)
    shutil.copy(folder / "training/rgb/00000000.jpg", folder / "training/rgb/00000001.jpg")
    with pytest.raises(UserError, match=str(folder)):
        prepare(folder, data_dir)


def test_failed_prepare_leaves_nothing_and_can_be_repeated(folder, data_dir, freihand_folder):
    path = folder / "evaluation_verts.json"
    path.write_text(path.read_text()[:5000])
    with pytest.raises(UserError, match=r"evaluation_verts\.json"):
        prepare(folder, data_dir)
    assert not list(data_dir.glob("freihand/*"))
    assert len(records(prepare(freihand_folder, data_dir), "test")) == 7


def test_prepare_rejects_incomplete_folder_before_writing(folder, data_dir):
    (folder / "training/rgb/00000009.jpg").unlink()
    with pytest.raises(UserError, match=str(folder)):
        prepare(folder, data_dir)
    assert not list(data_dir.glob("freihand/*"))


def test_prepare_names_unreadable_test_image(folder, data_dir):
    (folder / "evaluation/rgb/00000004.jpg").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"evaluation/rgb/00000004\.jpg"):
        prepare(folder, data_dir)


SLOW_BUILD = """
import sys, time
from pathlib import Path
from tfds_freihand import freihand_dataset_builder as builder, prepare
examples = builder._examples
def slowly(*args):
    for example in examples(*args):
        time.sleep(0.5)
        yield example
builder._examples = slowly
prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.long
def test_killed_prepare_leaves_nothing_that_looks_complete(freihand_folder, data_dir):
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, freihand_folder, data_dir])
    deadline = time.monotonic() + 60
    while not list(data_dir.glob("freihand/incomplete.*/*array_record*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (data_dir / "freihand" / "1.0.0").exists()
    dataset_dir = prepare(freihand_folder, data_dir)
    assert len(records(dataset_dir, "train")) == 10
    assert list(dataset_dir.parent.iterdir()) == [dataset_dir]


def test_prepare_names_full_disk_and_leaves_nothing(freihand_folder, data_dir):
    with small_disk(data_dir, 60_000) as resize:
        with pytest.raises(DiskFullError, match=str(data_dir)):
            prepare(freihand_folder, data_dir)
        assert not list(data_dir.glob("freihand/*"))
        resize(8_000_000)
        assert len(records(prepare(freihand_folder, data_dir), "train")) == 10


def test_prepare_stores_unreadable_training_image_unchanged(folder, data_dir):
    """The loader names or skips it; preparing the other 130,000 must not fail because of it."""
    (folder / "training/rgb/00000002.jpg").write_bytes(b"not an image")
    assert records(prepare(folder, data_dir), "train")[2]["image"] == b"not an image"


def test_prepared_dataset_reads_with_tfds_alone(freihand_folder, data_dir):
    builder = tfds.builder_from_directory(prepare(freihand_folder, data_dir))
    path = freihand_folder / freihand.image_name("test", 3)
    wanted = simplejpeg.decode_jpeg(path.read_bytes()).astype(int)
    read = builder.as_data_source("test")[3]["image"].astype(int)
    assert np.abs(read - wanted).max() <= 4  # Another decoder rounds differently.


def test_prepare_folder_names_bad_hand_model(freihand_folder, data_dir, tmp_path):
    assert prepare_folder(freihand_folder, data_dir) == prepare(None, data_dir)
    with pytest.raises(UserError, match=r"absent\.pkl"):
        prepare_folder(freihand_folder, data_dir, tmp_path / "absent.pkl")
