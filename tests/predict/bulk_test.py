import contextlib
import os
import signal
import time
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
from m3dhmr_jax.predict.shard_plan import plan_shards
from m3dhmr_jax.predict.shards import HAND_COLUMNS, Job, image_version
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


def rows_of(out):
    return pq.read_table(out).to_pylist()


def files_of(out):
    return {path.name: path.read_bytes() for path in Path(out).glob("hands-*")}


def predict(trained, images, out, predict_options=None, **options):
    options = {"workers": 2, "batch_size": 3} | options
    predict_options = predict_options or PredictOptions(freihand=True)
    bulk.predict_folder(
        str(trained[0]), None, None, str(images), str(out), predict_options, **options
    )


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
    known = {"image", "error", "file_bytes", "file_mtime_ns"}
    assert {name for name, value in broken.items() if value is not None} == known
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
            if "ShardWorker" in (stat.parent / "cmdline").read_text():
                found.append(pid)
    for pid in found:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid():
            yield pid


def make_job(trained, predictor, source, out):
    options = PredictOptions(freihand=True)
    return Job(
        str(trained[0]), None, None, "jax", predictor.weights_sha256, options, None, source, out
    )


def make_tasks(job, images):
    """Two images for each."""
    wanted = {image.path: image_version(image, None) for image in images}
    return plan_shards(wanted, {}, job.settings, 2).tasks


def test_the_cause_of_a_worker_s_failure_is_reported(trained, predictor, cluster, images, tmp_path):
    found = find_images(str(images))
    (tmp_path / "out").mkdir()
    job = make_job(trained, predictor, found.source, open_location(str(tmp_path / "out")))
    tasks = make_tasks(job, found.images)
    with pytest.raises(UserError, match=f"^{trained[0]} holds other weights"):
        bulk.write_shards(job._replace(weights_sha256="0" * 64), tasks, 2, 0.0)
    missing = open_location(str(tmp_path / "missing"))
    with pytest.raises(UserError, match=f"^{missing.path} cannot be written to: "):
        bulk.write_shards(job._replace(out=missing), tasks, 2, 0.0)
    wrong = job._replace(options=PredictOptions(fov_deg="wide"))
    with pytest.raises(
        ChildProcessError, match=r"^\w+Error in hands-.*: .+the same command"
    ) as caught:
        bulk.write_shards(wrong, tasks, 2, 0.0)
    assert "\n" not in str(caught.value)


def test_killed_worker_loses_and_duplicates_nothing(trained, predictor, cluster, images, tmp_path):
    (images / "broken.jpg").unlink()
    found = find_images(str(images))
    names = [each.path for each in found.images]
    image, aside = Path(names[4]), tmp_path / "aside.png"
    image.rename(aside)
    os.mkfifo(image)  # Opening it waits for a writer, and there is none.
    out = open_location(str(tmp_path / "out"))
    Path(out.path).mkdir()
    job = make_job(trained, predictor, found.source, out)
    tasks = make_tasks(job, found.images)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(bulk.write_shards, job, tasks, 2, 0.0)
        while not files_of(out.path) and not run.done():
            time.sleep(0.05)
        assert tasks[2].name not in files_of(out.path)
        aside.rename(image)
        killed = list(workers_of_this_process())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        run.result()
    assert killed
    rows = rows_of(out.path)
    assert sorted(row["image"] for row in rows) == names
    check_rows(rows, predictor)
    assert set(files_of(out.path)) == {task.name for task in tasks}
    assert not list(Path(out.path).glob(".*"))


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
