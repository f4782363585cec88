"""Bulk runs without Ray: all shards are written in this process."""

import contextlib
import json
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import bulk, shards
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.predict.left_out import OWN_RESULT
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, PredictOptions
from m3dhmr_jax.predict.shard_folder import MARK, shard_name
from m3dhmr_jax.predict.shards import Job, ShardWriter
from m3dhmr_jax.predict.storage import find_images, open_location
from m3dhmr_jax.runtime.files import DiskFullError
from tests.conftest import exit_code
from tests.faults import small_disk

OPTIONS = PredictOptions(freihand=True)


def in_this_process(job, tasks, workers, gpus):
    write = ShardWriter(job)
    for task in tasks:
        write(task)


@pytest.fixture(autouse=True)
def in_one_process(predictor, monkeypatch):
    for module in (bulk, shards):
        monkeypatch.setattr(module, "load_predictor", lambda *_: predictor)
    monkeypatch.setattr(bulk, "connected", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(bulk, "write_shards", in_this_process)


@pytest.fixture
def valid_images(images):
    (images / "broken.jpg").unlink()
    return images


def predict(images, out, options=OPTIONS, batch_size=3):
    bulk.predict_folder(None, None, None, str(images), str(out), options, batch_size=batch_size)


def rows_of(out):
    return pq.read_table(out).to_pylist()


def by_name(out):
    rows = rows_of(out)
    assert len(rows) == len({row["image"] for row in rows})
    return {Path(row["image"]).name: row for row in rows}


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def shards_of(out):
    return {path.name: path.read_bytes() for path in Path(out).glob("hands-*")}


def test_an_interrupted_run_resumes_from_complete_files(valid_images, tmp_path, capsys):
    out = tmp_path / "out"
    predict(valid_images, out)
    files = shards_of(out)
    lost, corrupted, *kept = sorted(files)
    n_kept = sum(pq.read_metadata(out / name).num_rows for name in kept)
    (out / lost).unlink()
    (out / corrupted).write_bytes(files[corrupted][:-100])
    leftover = out / f".{lost}.{'0' * 32}"  # As left by a killed writer.
    leftover.write_bytes(files[lost][:100])
    predict(valid_images, out, batch_size=2)
    captured = capsys.readouterr()
    assert corrupted in captured.err
    assert f"10 images: {10 - n_kept} new, {n_kept} finished before\n" in captured.out
    after = shards_of(out)
    assert {name: after.get(name) for name in kept} == {name: files[name] for name in kept}
    assert not list(out.glob(".*"))
    names = [each.path for each in find_images(str(valid_images)).images]
    assert sorted(row["image"] for row in rows_of(out)) == names
    (out / f"hands-{'0' * 16}.parquet").write_bytes(files[kept[0]])
    with pytest.raises(UserError, match=r"hands-0{16}\.parquet .*both contain .*\.png"):
        predict(valid_images, out)


def test_changed_files_are_predicted_again(images, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"broken\.jpg"):
        predict(images, out)
    before = by_name(out)
    files = shards_of(out)
    (images / "0.png").write_bytes((images / "3.png").read_bytes())
    (images / "broken.jpg").write_bytes((images / "3.png").read_bytes())
    (images / "more" / "1.png").unlink()
    capsys.readouterr()
    predict(images, out)
    assert "10 images: 0 new, 8 finished before, 2 predicted again (file changed)" in (
        capsys.readouterr().out
    )
    after = by_name(out)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"0.png", "broken.jpg"}
    for name in ("0.png", "broken.jpg"):
        assert after[name]["error"] is None
        assert after[name]["verts_m"] == after["3.png"]["verts_m"]
    assert shards_of(out).keys() == files.keys()
    assert sum(shards_of(out)[name] != files[name] for name in files) in (1, 2)
    done = shards_of(out)
    predict(images, out)
    assert shards_of(out) == done


def test_corrected_boxes_are_predicted_again(valid_images, tmp_path, capsys):
    out, boxes = tmp_path / "out", tmp_path / "boxes.csv"
    header = "image,x,y,width,height,handedness\n"
    boxes.write_text(f"{header}0.png,5,5,30,30,left\n3.png,5,5,30,30,left\n")
    predict(valid_images, out, PredictOptions(boxes=boxes))
    capsys.readouterr()
    boxes.write_text(f"{header}0.png,40,20,30,30,left\n3.png,5,5,30,30,left\n")
    predict(valid_images, out, PredictOptions(boxes=boxes))
    assert "9 finished before, 1 predicted again (boxes changed)" in capsys.readouterr().out
    rows = by_name(out)
    assert rows["0.png"]["crop_px"] != rows["3.png"]["crop_px"]


def test_other_options_predict_all_images_again_or_are_rejected(valid_images, tmp_path, capsys):
    out = tmp_path / "out"
    predict(valid_images, out)
    before = contents(out)
    for options in (OPTIONS._replace(fov_deg=40.0), OPTIONS._replace(handedness="left")):
        with pytest.raises(UserError, match=r"other (fov|handedness), .*--out"):
            predict(valid_images / "0.png", out, options)
        assert contents(out) == before
    capsys.readouterr()
    predict(valid_images, out, OPTIONS._replace(fov_deg=40.0))
    assert "0 finished before, 10 predicted again (other fov)" in capsys.readouterr().out
    assert all(row["camera"] == "given" for row in by_name(out).values())
    assert contents(out).keys() == before.keys()


def test_workers_reject_other_weights(tmp_path):
    location = open_location(str(tmp_path))
    job = Job("mine", None, None, "jax", "0" * 64, PredictOptions(), None, location, location)
    with pytest.raises(UserError, match="mine"):
        ShardWriter(job)


def test_an_interruption_while_predicting_again_loses_nothing(
    valid_images, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    predict(valid_images, out)
    before = by_name(out)
    os.utime(valid_images / "0.png", ns=(0, 0))
    write, written = ShardWriter.__call__, []

    def interrupt_third(self, task):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(task)
        return write(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "__call__", interrupt_third)
        with pytest.raises(KeyboardInterrupt):
            predict(valid_images, out, OPTIONS._replace(fov_deg=40.0))
    assert by_name(out).keys() == before.keys()
    predict(valid_images, out)
    n_again = sum(len(task.images) for task in written)
    assert f"{n_again} predicted again (other fov)" in capsys.readouterr().out
    after = by_name(out)
    assert after.pop("0.png")["file_mtime_ns"] == 0
    del before["0.png"]
    assert after == before


def test_boxes_and_camera_apply(predictor, images, tmp_path, capsys):
    boxes = tmp_path / "boxes.csv"
    rows = "image,x,y,width,height,handedness\n0.png,5,5,30,30,left\n0.png,40,20,30,30,\n"
    boxes.write_text(rows)
    options = ["--boxes", str(boxes), "--fov", "40", "--out", str(tmp_path / "out")]
    options += ["--handedness", "right", f"{images}/*.png"]
    assert exit_code(cli.main, ["bulk", *options]) == 0
    text = capsys.readouterr().out
    assert "9 of 10 images have no row in" in text
    assert "no hand found in 9 of 10 images" in text
    rows = {(Path(row["image"]).name, row["hand"]): row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {("0.png", 0), ("0.png", 1)} | {(f"{i}.png", None) for i in range(1, 10)}
    k = np.reshape(rows["1.png", None]["K"], (3, 3))
    np.testing.assert_allclose(k[0, 0], 45 / np.tan(np.radians(20)), rtol=1e-5)
    k = np.float64(np.reshape(rows["0.png", 0]["K"], (3, 3)))
    image = read_image(images / "0.png").image
    want = predictor(image, [[5, 5, 30, 30], [40, 20, 30, 30]], ["left", "right"], k)
    for i, side in enumerate(("left", "right")):
        row = rows["0.png", i]
        assert (row["handedness"], row["camera"]) == (side, "given")
        np.testing.assert_allclose(row["verts_m"], want.verts_m[i].ravel(), atol=1e-5)
    (images / "more" / "0.png").write_bytes((images / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"2 .*0\.png"):
        predict(images, tmp_path / "twice", PredictOptions(boxes=boxes))


def test_boxes_that_match_nothing_are_counted_or_rejected(valid_images, tmp_path, capsys):
    boxes = tmp_path / "boxes.csv"
    box = "5,5,30,30,right"
    rows = [f"0.png,{box},0", f"0.png,{box},7", f"typo.png,{box},0", f"typo.png,{box},1"]
    boxes.write_text("\n".join(["image,x,y,width,height,handedness,frame", *rows]))
    predict(valid_images, tmp_path / "out", PredictOptions(boxes=boxes))
    text = capsys.readouterr().out
    assert f"2 rows of {boxes} match no image: typo.png\n" in text
    assert f"1 rows of {boxes} are left out: the frame of an image is 0 (0.png)\n" in text
    assert f"9 of 10 images have no row in {boxes}" in text
    boxes.write_text("\n".join(["image,x,y,width,height,handedness,frame", *rows[2:]]))
    with pytest.raises(UserError, match=r"boxes\.csv .*typo\.png"):
        predict(valid_images, tmp_path / "none", PredictOptions(boxes=boxes))
    assert not (tmp_path / "none").exists()


def test_rows_note_what_a_prediction_warns_of(predictor, images, tmp_path, monkeypatch):
    none = predictor(read_image(images / "0.png").image, boxes=[])

    def warn(*_, **__):
        warnings.warn("3 hands smaller than 20 px were skipped", stacklevel=1)
        return none

    monkeypatch.setattr(HandMeshPredictor, "__call__", warn)
    predict(images / "0.png", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert (row["hand"], row["note"]) == (None, "3 hands smaller than 20 px were skipped")


def test_rows_note_a_doubtful_camera_once(valid_images, tmp_path):
    """As of an image of twice the size."""
    k = np.array([[100.0, 0, 89.5], [0, 100, 59.5], [0, 0, 1]])
    options = PredictOptions(freihand=True, intrinsics=k)
    predict(valid_images / "0.png", tmp_path / "out", options)
    (row,) = rows_of(tmp_path / "out")
    assert row["camera"] == "given"
    assert row["note"].count("as in an image of 180 x 120 px") == 1


def test_files_that_cannot_be_used_are_counted(valid_images, tmp_path, capsys):
    name = os.fsencode(valid_images) + b"/a\xff.png"
    Path(os.fsdecode(name)).write_bytes((valid_images / "0.png").read_bytes())
    (valid_images / "clip.MP4").touch()
    (valid_images / "LICENSE").touch()
    given = ["bulk", str(valid_images), "--freihand", "--out", str(tmp_path / "out")]
    assert exit_code(cli.main, given) == 2
    captured = capsys.readouterr()
    assert "hands of 10 of 11 images written" in captured.out
    assert "left out: " in captured.out
    for each in ("1 .mp4", "1 .txt", "1 file without ending"):
        assert each in captured.out
    assert r"a\xff.png" in captured.err
    assert len(rows_of(tmp_path / "out")) == 10
    assert exit_code(cli.main, ["bulk", os.fsdecode(name)]) == 2
    assert r"a\xff.png: its name is not UTF-8" in capsys.readouterr().err


LOOKALIKES = [
    "hands-001.jpg",
    "hands-notes.csv",
    "hands-labels.parquet",
    "hands-0123456789ABCDEF.parquet",
    "hands-0123456789abcdef.parquet.bak",
    ".hands-notes",
    f".hands-notes.{'0' * 32}",
    ".hands-0123456789abcdef.parquet.mine",
    f"._faces.json.{'0' * 31}",
    "sub/hands-0123456789abcdef.parquet",
]


@pytest.mark.parametrize("name", [*LOOKALIKES, "_faces.json", "hands-0123456789abcdef.parquet"])
def test_a_folder_of_others_is_left_as_it_is(valid_images, tmp_path, name):
    out = tmp_path / "hands"
    path = out / name
    path.parent.mkdir(parents=True)
    path.write_bytes((valid_images / "0.png").read_bytes())
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"hands contains files .*--out"):
        predict(valid_images, out)
    (out / MARK).write_text('{"mark": "of another program"}')
    with pytest.raises(UserError, match=re.escape(MARK)):
        predict(valid_images, out)
    (out / MARK).unlink()
    assert contents(tmp_path) == before


def test_a_folder_that_is_also_the_input_is_left_as_it_is(valid_images):
    before = contents(valid_images)
    with pytest.raises(UserError, match="--out"):
        predict(valid_images, valid_images)
    assert contents(valid_images) == before


def test_in_its_own_folder_bulk_leaves_the_files_of_others(valid_images, tmp_path):
    out = tmp_path / "out"
    predict(valid_images, out)
    ours = set(contents(out))
    for name in LOOKALIKES:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"mine")
    Path(os.fsdecode(os.fsencode(out) + b"/\xff")).write_bytes(b"mine")
    before = {path: content for path, content in contents(out).items() if path not in ours}
    os.utime(valid_images / "0.png", ns=(0, 0))
    next(out / path for path in ours if path.suffix == ".parquet").write_bytes(b"PAR1")
    predict(valid_images, out)
    predict(valid_images, out, OPTIONS._replace(views=2))
    after = contents(out)
    assert {path: after.get(path) for path in before} == before
    assert set(after) == ours | set(before)


def test_a_file_of_others_with_the_name_of_a_shard_stops_the_run(valid_images, tmp_path):
    out = tmp_path / "out"
    predict(valid_images, out)
    path = out / "hands-0123456789abcdef.parquet"
    table = pa.table({"image": ["mine"]})
    for metadata in (None, {"m3dhmr_jax": "not JSON"}):
        pq.write_table(table.replace_schema_metadata(metadata), path)
        before = contents(out)
        with pytest.raises(UserError, match=path.name):
            predict(valid_images, out)
        assert contents(out) == before
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=path.name):
        predict(valid_images, out)
    assert path.read_bytes() == b"mine"


def test_what_a_killed_start_leaves_is_a_new_folder(valid_images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{MARK}.{'0' * 32}").write_bytes(b"{")
    predict(valid_images / "0.png", out)
    names = {path.name for path in out.iterdir()}
    assert names == {MARK, "_faces.json", shard_name([str(valid_images / "0.png")])}
    assert json.loads((out / MARK).read_text())["program"] == "m3dhmr bulk"


def test_results_of_predict_are_not_inputs(valid_images, tmp_path, capsys):
    folder = valid_images / "results"
    folder.mkdir()
    for name in ("a_overlay.jpg", "mine.png"):
        (folder / name).write_bytes((valid_images / "0.png").read_bytes())
    (folder / "m3dhmr_files.txt").write_text("a_overlay.jpg\n")
    assert len(find_images(str(valid_images)).images) == 12  # A list of the user's.
    lines = "The files that m3dhmr predict wrote here; ...\na_overlay.jpg\nhands.jsonl\n"
    (folder / "m3dhmr_files.txt").write_text(lines)
    predict(valid_images, tmp_path / "out")
    assert "1 result of an earlier call" in capsys.readouterr().out
    assert "mine.png" in by_name(tmp_path / "out")
    assert "a_overlay.jpg" not in by_name(tmp_path / "out")
    with pytest.raises(UserError, match="1 result of an earlier call"):
        find_images(str(folder / "a_overlay.jpg"))
    with pytest.raises(UserError, match="1 result of an earlier call"):
        find_images(f"{folder}/*.jpg")
    address = f"file://{valid_images}"
    assert find_images(address).left_out[OWN_RESULT] == 1


def test_failed_writes_name_the_folder(valid_images, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out", "/proc/out"):
        with pytest.raises((UserError, OSError), match=str(out)) as caught:
            predict(valid_images, out)
        assert isinstance(caught.value, UserError)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.long
def test_a_full_disk_is_named_and_the_next_call_resumes(valid_images, tmp_path):
    out = tmp_path / "disk"
    with small_disk(out, 2**16) as resize:
        with pytest.raises(DiskFullError, match=str(out)):
            predict(valid_images, out, batch_size=2)
        assert not list(out.glob(".*"))
        resize(2**24)
        predict(valid_images, out, batch_size=2)
        assert len(rows_of(out)) == 10
