import contextlib
import os
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import bulk
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.predict.outputs import faces_as_json
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, PredictOptions
from m3dhmr_jax.predict.shards import HAND_COLUMNS, Job, ShardWriter, shard_name
from m3dhmr_jax.predict.storage import find_images, open_location
from tests.conftest import exit_code

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def predictor(trained):
    return HandMeshPredictor.from_checkpoint(trained[0])


@pytest.fixture(scope="module")
def cluster():
    """Ray with room for two workers."""
    with bulk.connected("local", 2):
        import ray

        yield ray


def in_this_process(job, shards, workers, gpus):
    write = ShardWriter(job)
    for shard in shards:
        write({"images": shard})


@pytest.fixture
def in_one_process(predictor, monkeypatch):
    monkeypatch.setattr(HandMeshPredictor, "from_checkpoint", lambda _: predictor)
    monkeypatch.setattr(bulk, "connected", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(bulk, "write_shards", in_this_process)


def rows_of(out):
    return pq.read_table(out).to_pylist()


def files_of(out):
    return {path.name: path.read_bytes() for path in Path(out).glob("hands-*")}


def predict(trained, images, out, predict_options=None, **options):
    options = {"workers": 2, "batch_size": 3} | options
    predict_options = predict_options or PredictOptions(freihand=True)
    bulk.predict_folder(str(trained[0]), None, str(images), str(out), predict_options, **options)


def check_rows(rows, predictor):
    """Rows contain what the predictor returns for centred crops."""
    for row in rows:
        hands = predictor(read_image(Path(row["image"])).image, freihand=True)
        assert (row["hand"], row["handedness"], row["camera"]) == (0, "right", "assumed")
        assert row["method"] == "network"
        assert row["handedness_probability"] is None  # It was assumed.
        for name in HAND_COLUMNS.keys() - {"handedness_probability"}:
            want = np.ravel(getattr(hands, name)[0])
            np.testing.assert_allclose(np.ravel(row[name]), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(row["K"], hands.intrinsics.ravel(), rtol=1e-6)


def test_predict_folder_predicts_every_image_once_on_two_workers(
    trained, predictor, cluster, images, tmp_path, capsys
):
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"1 of 11 .*broken\.jpg"):
        predict(trained, images, out)
    assert "10 of 11" in capsys.readouterr().out
    rows = rows_of(out)
    wanted = {str(path) for path in images.rglob("*.*g")}
    assert len(rows) == len(wanted) == 11
    assert {row["image"] for row in rows} == wanted
    check_rows([row for row in rows if not row["error"]], predictor)
    (broken,) = (row for row in rows if row["error"])
    assert {name for name, value in broken.items() if value is not None} == {"image", "error"}
    assert (out / "_faces.json").read_bytes() == faces_as_json(predictor.hand.faces)
    before = files_of(out)
    assert len(before) == 4
    with pytest.raises(IncompleteError, match="1 of 11"):
        predict(trained, images, out)
    assert files_of(out) == before


def workers_of_this_process():
    """Processes with the network that Ray started for this one."""
    parents, found = {}, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid = int(stat.parts[2])
            parents[pid] = int(stat.read_text().rpartition(")")[2].split()[1])
            if "ShardWriter" in (stat.parent / "cmdline").read_text():
                found.append(pid)
    for pid in found:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid():
            yield pid


def test_killed_worker_loses_and_duplicates_nothing(trained, predictor, cluster, images, tmp_path):
    (images / "broken.jpg").unlink()
    source, names = find_images(str(images))
    image, aside = Path(names[4]), tmp_path / "aside.png"
    image.rename(aside)
    os.mkfifo(image)  # Opening it waits for a writer, and there is none.
    out = open_location(str(tmp_path / "out"))
    Path(out.path).mkdir()
    options = PredictOptions(freihand=True)
    job = Job(str(trained[0]), None, predictor.weights_sha256, options, None, source, out)
    shards = [names[i : i + 2] for i in range(0, 10, 2)]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(bulk.write_shards, job, shards, 2, 0.0)
        while not files_of(out.path) and not run.done():
            time.sleep(0.05)
        assert shard_name(shards[2]) not in files_of(out.path)
        aside.rename(image)
        killed = list(workers_of_this_process())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        run.result()
    assert killed
    rows = rows_of(out.path)
    assert sorted(row["image"] for row in rows) == names
    check_rows(rows, predictor)
    assert set(files_of(out.path)) == set(map(shard_name, shards))
    assert not list(Path(out.path).glob(".*"))


def test_predict_folder_resumes_from_complete_files(
    trained, images, tmp_path, capsys, in_one_process
):
    (images / "broken.jpg").unlink()
    out = tmp_path / "out"
    predict(trained, images, out)
    files = files_of(out)
    lost, corrupted, *kept = sorted(files)
    (out / lost).unlink()
    (out / corrupted).write_bytes(files[corrupted][:-100])
    (out / f".{lost}.1").write_bytes(files[lost][:100])  # As left by a killed writer.
    predict(trained, images, out, batch_size=2)
    assert corrupted in capsys.readouterr().err
    after = files_of(out)
    assert {name: after.get(name) for name in kept} == {name: files[name] for name in kept}
    assert not list(out.glob(".*"))
    assert sorted(row["image"] for row in rows_of(out)) == find_images(str(images))[1]
    (out / "hands-copy.parquet").write_bytes(files[kept[0]])
    with pytest.raises(UserError, match=r"hands-\w+\.parquet"):
        predict(trained, images, out)


def test_predict_folder_does_not_mix_options_or_weights(
    trained, predictor, images, tmp_path, in_one_process
):
    out = tmp_path / "out"
    predict(trained, images / "0.png", out)
    with pytest.raises(UserError, match=r"hands-\w+\.parquet"):
        predict(trained, images, out, PredictOptions(freihand=True, fov_deg=40))
    with pytest.raises(UserError, match=r"hands-\w+\.parquet"):
        predict(trained, images, out, PredictOptions(freihand=True, views=2))
    location = open_location(str(out))
    job = Job(str(trained[0]), None, "0" * 64, PredictOptions(), None, location, location)
    with pytest.raises(UserError, match=str(trained[0])):
        ShardWriter(job)


def test_bulk_applies_boxes_and_camera(
    trained, predictor, images, tmp_path, capsys, in_one_process
):
    boxes = tmp_path / "boxes.csv"
    rows = "image,x,y,width,height,handedness\n0.png,5,5,30,30,left\n0.png,40,20,30,30,\n"
    boxes.write_text(rows)
    options = ["--boxes", str(boxes), "--fov", "40", "--out", str(tmp_path / "out")]
    options += ["--handedness", "right", "--checkpoint", str(trained[0]), f"{images}/*.png"]
    assert exit_code(cli.main, ["bulk", *options]) == 0
    assert "no hand found in 9 of 10 images" in capsys.readouterr().out
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
        predict(trained, images, tmp_path / "twice", PredictOptions(boxes=boxes))


def test_bulk_notes_what_a_prediction_warns_of(
    trained, predictor, images, tmp_path, in_one_process, monkeypatch
):
    none = predictor(read_image(images / "0.png").image, boxes=[])

    def warn(*_, **__):
        warnings.warn("3 hands smaller than 20 px were skipped", stacklevel=1)
        return none

    monkeypatch.setattr(HandMeshPredictor, "__call__", warn)
    predict(trained, images / "0.png", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert (row["hand"], row["note"]) == (None, "3 hands smaller than 20 px were skipped")


def test_bulk_notes_a_doubtful_camera_once(trained, images, tmp_path, in_one_process):
    """As of an image of twice the size."""
    k = np.array([[100.0, 0, 89.5], [0, 100, 59.5], [0, 0, 1]])
    options = PredictOptions(freihand=True, intrinsics=k)
    predict(trained, images / "0.png", tmp_path / "out", options)
    (row,) = rows_of(tmp_path / "out")
    assert row["camera"] == "given"
    assert row["note"].count("as in an image of 180 x 120 px") == 1


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (["images", "--fov=180"], "180"),
        (["images", "--batch-size=0"], "--batch-size 0"),
        (["none"], "none"),
        (["images", "--checkpoint=none"], "none"),
        (["images", "--boxes=none.csv"], "none.csv"),
    ],
)
def test_bulk_reports_a_user_s_mistake_in_one_line(
    trained, images, tmp_path, capsys, monkeypatch, options, value
):
    monkeypatch.chdir(tmp_path)
    given = ["--checkpoint", str(trained[0]), "--out=out", *options]
    assert exit_code(cli.main, ["bulk", *given]) == 2
    error = capsys.readouterr().err
    assert value in error
    assert error.startswith("Error: ")
    assert error.count("\n") == 1


def test_bulk_without_ray_names_the_extra(trained, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bulk.importlib.util, "find_spec", lambda _: None)
    given = ["--checkpoint", str(trained[0]), str(images), "--out", str(tmp_path)]
    assert exit_code(cli.main, ["bulk", *given]) == 2
    assert "m3dhmr_jax[ray]" in capsys.readouterr().err
