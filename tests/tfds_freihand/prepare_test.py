import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from m3dhmr_jax.data import freihand
from m3dhmr_jax.runtime.files import DiskFullError
from tests.faults import small_disk
from tfds_freihand import freihand_dataset_builder
from tfds_freihand.prepare import prepare


@pytest.fixture
def folder(freihand_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(freihand_folder, tmp_path / "set")


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "tfds"


def records(dataset_dir, split):
    builder = tfds.builder_from_directory(dataset_dir)
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def test_every_record_is_its_photo_with_the_labels_of_its_hand(
    freihand_folder, data_dir, monkeypatch
):
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
            photo = freihand_folder / freihand.image_name(split, i)
            assert record["image"] == photo.read_bytes()
            np.testing.assert_array_equal(record["K"], labels.intrinsics[row])
            np.testing.assert_array_equal(record["xyz"], labels.joints_m[row])
            np.testing.assert_array_equal(record["verts"], labels.verts_m[row])
            assert record["scale"] == labels.scale_m[row]
            box = [60, 40 + row, 90, 100 - row] if split == "train" else [47, 47, 130, 130]
            np.testing.assert_allclose(record["bbox"], box, atol=1)


def test_tfds_knows_what_it_is(freihand_folder, data_dir):
    info = tfds.builder_from_directory(prepare(freihand_folder, data_dir)).info
    assert info.full_name == "freihand/1.0.0"
    assert "zimmermann2019freihand" in info.citation
    assert info.splits["train"].num_examples == 10
    assert "tensorflow" not in sys.modules
    assert info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def test_is_prepared_once_and_found_again(freihand_folder, data_dir):
    dataset_dir = prepare(freihand_folder, data_dir)
    written = {path: path.stat().st_mtime_ns for path in dataset_dir.iterdir()}
    assert prepare(freihand_folder, data_dir) == dataset_dir
    assert prepare(None, data_dir) == dataset_dir
    assert {path: path.stat().st_mtime_ns for path in dataset_dir.iterdir()} == written


def test_many_at_once_prepare_one_dataset(freihand_folder, data_dir):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(freihand_folder, data_dir), range(4)))
    assert len(set(found)) == 1
    assert len(records(found[0], "train")) == 10


def test_other_content_is_refused(folder, data_dir):
    prepare(folder, data_dir)
    shutil.copy(folder / "training/rgb/00000000.jpg", folder / "training/rgb/00000001.jpg")
    with pytest.raises(ValueError, match="made from other content"):
        prepare(folder, data_dir)


def test_a_failed_build_leaves_nothing_and_can_be_repeated(folder, data_dir, freihand_folder):
    path = folder / "evaluation_verts.json"
    path.write_text(path.read_text()[:5000])
    with pytest.raises(ValueError, match=r"evaluation_verts\.json: the list ends in the middle"):
        prepare(folder, data_dir)
    assert not list(data_dir.glob("freihand/*"))
    assert len(records(prepare(freihand_folder, data_dir), "test")) == 7


def test_an_incomplete_folder_is_refused_before_anything_is_written(folder, data_dir):
    (folder / "training/rgb/00000009.jpg").unlink()
    with pytest.raises(ValueError, match="9 photos and training/mask has 5 masks"):
        prepare(folder, data_dir)
    assert not list(data_dir.glob("freihand/*"))


def test_an_unreadable_test_photo_is_named(folder, data_dir):
    (folder / "evaluation/rgb/00000004.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"evaluation/rgb/00000004\.jpg: not a readable JPEG"):
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


def test_a_killed_build_leaves_nothing_that_looks_complete(freihand_folder, data_dir):
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


def test_a_full_disk_is_named_and_leaves_nothing(freihand_folder, data_dir):
    with small_disk(data_dir, 60_000) as resize:
        with pytest.raises(DiskFullError, match=rf"{data_dir}: No space left on device"):
            prepare(freihand_folder, data_dir)
        assert not list(data_dir.glob("freihand/*"))
        resize(8_000_000)
        assert len(records(prepare(freihand_folder, data_dir), "train")) == 10


def test_a_photo_that_is_no_jpeg_is_stored_as_it_is(folder, data_dir):
    """The loader names it or skips it; preparing the other 130,000 must not fail for it."""
    (folder / "training/rgb/00000002.jpg").write_bytes(b"no photo")
    assert records(prepare(folder, data_dir), "train")[2]["image"] == b"no photo"


def test_reading_with_tfds_alone_gives_the_pixels(freihand_folder, data_dir):
    builder = tfds.builder_from_directory(prepare(freihand_folder, data_dir))
    photo = freihand_folder / freihand.image_name("test", 3)
    wanted = simplejpeg.decode_jpeg(photo.read_bytes()).astype(int)
    read = builder.as_data_source("test")[3]["image"].astype(int)
    assert np.abs(read - wanted).max() <= 4  # Another decoder rounds differently.
