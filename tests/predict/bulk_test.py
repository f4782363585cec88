import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from m3dhmr_jax.predict import bulk
from m3dhmr_jax.predict.images import read_photo
from m3dhmr_jax.predict.outputs import faces_as_json
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import IncompleteError, Wishes
from m3dhmr_jax.predict.shards import OF_A_HAND, Job, PartWriter, part_name
from m3dhmr_jax.predict.storage import find_photos, place_of

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


def in_this_process(job, parts, workers, gpus):
    write = PartWriter(job)
    for part in parts:
        write({"images": part})


@pytest.fixture
def in_one_process(predictor, monkeypatch):
    monkeypatch.setattr(HandMeshPredictor, "from_checkpoint", lambda _: predictor)
    monkeypatch.setattr(bulk, "connected", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(bulk, "write_parts", in_this_process)


def rows_of(out):
    return pq.read_table(out).to_pylist()


def files_of(out):
    return {path.name: path.read_bytes() for path in Path(out).glob("hands-*")}


def predict(trained, photos, out, wishes=None, **options):
    options = {"workers": 2, "batch_size": 3} | options
    bulk.predict_folder(str(trained[0]), str(photos), str(out), wishes or Wishes(), **options)


def check_rows(rows, predictor):
    """Rows of whole photos hold what the predictor says of these."""
    for row in rows:
        hands = predictor(read_photo(Path(row["image"])).image)
        assert (row["hand"], row["handedness"], row["camera"]) == (0, "right", "assumed")
        for name in OF_A_HAND:
            want = np.ravel(getattr(hands, name)[0])
            np.testing.assert_allclose(np.ravel(row[name]), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(row["K"], hands.intrinsics.ravel(), rtol=1e-6)


def test_two_workers_answer_every_photo_once_and_a_second_run_adds_nothing(
    trained, predictor, cluster, photos, tmp_path, capsys
):
    assert [node["NodeManagerAddress"] for node in cluster.nodes()] == ["127.0.0.1"]
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match=r"1 of 11 photos .*broken\.jpg: not an image"):
        predict(trained, photos, out)
    assert "10 of 11 photos answered" in capsys.readouterr().out
    rows = rows_of(out)
    wanted = {str(path) for path in photos.rglob("*.*g")}
    assert len(rows) == len(wanted) == 11
    assert {row["image"] for row in rows} == wanted
    check_rows([row for row in rows if not row["error"]], predictor)
    (broken,) = (row for row in rows if row["error"])
    assert {name for name, value in broken.items() if value is not None} == {"image", "error"}
    assert (out / "_faces.json").read_bytes() == faces_as_json(predictor.hand.faces)
    before = files_of(out)
    assert len(before) == 4
    with pytest.raises(IncompleteError, match="1 of 11 photos"):
        predict(trained, photos, out)
    assert files_of(out) == before


def workers_of_this_process():
    """Processes with the network that Ray started for this one."""
    parents, found = {}, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid = int(stat.parts[2])
            parents[pid] = int(stat.read_text().rpartition(")")[2].split()[1])
            if "PartWriter" in (stat.parent / "cmdline").read_text():
                found.append(pid)
    for pid in found:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid():
            yield pid


def test_a_killed_worker_loses_nothing_and_duplicates_nothing(
    trained, predictor, cluster, photos, tmp_path
):
    (photos / "broken.jpg").unlink()
    source, names = find_photos(str(photos))
    photo, aside = Path(names[4]), tmp_path / "aside.png"
    photo.rename(aside)
    os.mkfifo(photo)  # Whoever opens it waits for somebody who writes, and nobody does.
    out = place_of(str(tmp_path / "out"))
    Path(out.path).mkdir()
    job = Job(str(trained[0]), predictor.weights_sha256, Wishes(), None, source, out)
    parts = [names[i : i + 2] for i in range(0, 10, 2)]
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(bulk.write_parts, job, parts, 2, 0.0)
        while not files_of(out.path) and not run.done():
            time.sleep(0.05)
        assert part_name(parts[2]) not in files_of(out.path)
        aside.rename(photo)
        killed = list(workers_of_this_process())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        run.result()
    assert killed
    rows = rows_of(out.path)
    assert sorted(row["image"] for row in rows) == names
    check_rows(rows, predictor)
    assert set(files_of(out.path)) == set(map(part_name, parts))
    assert not list(Path(out.path).glob(".*"))


def test_a_run_goes_on_from_what_is_whole(trained, photos, tmp_path, capsys, in_one_process):
    (photos / "broken.jpg").unlink()
    out = tmp_path / "out"
    predict(trained, photos, out)
    files = files_of(out)
    lost, damaged, *kept = sorted(files)
    (out / lost).unlink()
    (out / damaged).write_bytes(files[damaged][:-100])
    (out / f".{lost}.1").write_bytes(files[lost][:100])  # As a writer leaves it that is killed.
    predict(trained, photos, out, batch_size=2)
    assert f"{damaged} is damaged" in capsys.readouterr().err
    after = files_of(out)
    assert {name: after.get(name) for name in kept} == {name: files[name] for name in kept}
    assert not list(out.glob(".*"))
    assert sorted(row["image"] for row in rows_of(out)) == find_photos(str(photos))[1]
    (out / "hands-copy.parquet").write_bytes(files[kept[0]])
    with pytest.raises(ValueError, match="so does another file: two runs wrote at once"):
        predict(trained, photos, out)


def test_answers_of_other_options_or_weights_are_not_mixed(
    trained, predictor, photos, tmp_path, in_one_process
):
    out = tmp_path / "out"
    predict(trained, photos / "0.png", out)
    with pytest.raises(ValueError, match="made with other weights or options"):
        predict(trained, photos, out, Wishes(field_deg=40))
    place = place_of(str(out))
    job = Job(str(trained[0]), "0" * 64, Wishes(), None, place, place)
    with pytest.raises(ValueError, match="holds other weights here"):
        PartWriter(job)


def test_boxes_and_cameras_are_those_of_the_command(
    trained, predictor, photos, tmp_path, in_one_process
):
    boxes = tmp_path / "boxes.csv"
    rows = "image,x,y,width,height,handedness\n0.png,5,5,30,30,left\n0.png,40,20,30,30,\n"
    boxes.write_text(rows)
    options = ["--boxes", str(boxes), "--fov", "40", "--out", str(tmp_path / "out")]
    options += ["--checkpoint", str(trained[0]), "--images", f"{photos}/?.png".replace("?", "*")]
    assert bulk.main(options) == 0
    rows = {(Path(row["image"]).name, row["hand"]): row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {("0.png", 0), ("0.png", 1)} | {(f"{i}.png", None) for i in range(1, 10)}
    k = np.reshape(rows["1.png", None]["K"], (3, 3))
    np.testing.assert_allclose(k[0, 0], 45 / np.tan(np.radians(20)), rtol=1e-5)
    k = np.float64(np.reshape(rows["0.png", 0]["K"], (3, 3)))
    photo = read_photo(photos / "0.png").image
    want = predictor(photo, [[5, 5, 30, 30], [40, 20, 30, 30]], ["left", "right"], k)
    for i, side in enumerate(("left", "right")):
        row = rows["0.png", i]
        assert (row["handedness"], row["camera"]) == (side, "given")
        np.testing.assert_allclose(row["verts_m"], want.verts_m[i].ravel(), atol=1e-5)
    (photos / "more" / "0.png").write_bytes((photos / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"2 photos are named 0\.png, and .*boxes\.csv"):
        predict(trained, photos, tmp_path / "twice", Wishes(boxes=boxes))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fov=180"], "field of view of 180"),
        (["--batch-size=0"], "--batch-size 0 must be at least 1"),
        (["--images=none"], "none: no photo there"),
        (["--checkpoint=none"], "neither the workdir of a run nor"),
        (["--boxes=none.csv"], "none.csv: no such file"),
    ],
)
def test_the_command_says_what_is_wrong_and_exits_with_2(
    trained, photos, tmp_path, capsys, monkeypatch, options, words
):
    monkeypatch.chdir(tmp_path)
    given = ["--checkpoint", str(trained[0]), "--images=photos", "--out=out", *options]
    assert bulk.main(given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_without_ray_the_command_names_the_extra(trained, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bulk.importlib.util, "find_spec", lambda _: None)
    given = ["--checkpoint", str(trained[0]), "--images", str(photos), "--out", str(tmp_path)]
    assert bulk.main(given) == 2
    message = 'Error: Ray is not installed: pip install "m3dhmr_jax[ray]"\n'
    assert capsys.readouterr().err == message
