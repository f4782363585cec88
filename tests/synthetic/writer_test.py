import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from m3dhmr_jax import cli
from m3dhmr_jax.hand import hand_id, load_builtin, load_mano
from m3dhmr_jax.synthetic import QUICKSTART, example, write_dataset, writer
from m3dhmr_jax.synthetic.contact_sheet import contact_sheet
from m3dhmr_jax.synthetic.imaging import encode_photo
from m3dhmr_jax.synthetic.render import draw, photograph
from m3dhmr_jax.synthetic.scene import make_kit, sample_scene
from tests.faults import small_disk, wait_for_end, wait_until, workers_of

N_TRAIN, N_TEST = 3, 1


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    write_dataset(folder, N_TRAIN, N_TEST, 3, 1, QUICKSTART, backgrounds=4)
    return folder


def test_the_layout_is_freihands(dataset):
    names = {f"training/rgb/{i:08d}.jpg" for i in range(4 * N_TRAIN)}
    names |= {f"training/mask/{i:08d}.jpg" for i in range(N_TRAIN)}
    names |= {"evaluation/rgb/00000000.jpg", "evaluation/mask/00000000.jpg"}
    names |= {f"{s}_{k}.json" for s in example.SPLITS for k in writer.ANNOTATIONS}
    names |= {writer.ORIGIN, writer.LOCK}
    assert set(contents(dataset)) == names


@pytest.mark.parametrize(("split", "count"), [("training", N_TRAIN), ("evaluation", N_TEST)])
def test_annotations_have_freihands_shapes(dataset, split, count):
    read = {
        k: np.array(json.loads((dataset / f"{split}_{k}.json").read_text()))
        for k in writer.ANNOTATIONS
    }
    shapes = {kind: value.shape for kind, value in read.items()}
    assert shapes == {
        "K": (count, 3, 3),
        "xyz": (count, 21, 3),
        "verts": (count, 778, 3),
        "scale": (count,),
    }
    bone = np.linalg.norm(read["xyz"][:, 9] - read["xyz"][:, 10], axis=1)
    np.testing.assert_allclose(read["scale"], bone, atol=3e-6)


def test_the_versions_of_a_picture_show_one_hand_differently(dataset):
    mask = cv2.imread(str(dataset / "training/mask/00000001.jpg"), cv2.IMREAD_GRAYSCALE) > 127
    paths = [dataset / f"training/rgb/{1 + v * N_TRAIN:08d}.jpg" for v in range(4)]
    photos = np.stack([cv2.imread(str(path)) for path in paths]).astype(float)
    assert photos.shape == (4, 224, 224, 3)
    assert mask.sum() > 500
    assert photos[:, ~mask].mean(1).std(0).max() > 3


@pytest.mark.parametrize("version", [0, 3])
def test_rgb_i_shows_annotation_i_modulo_the_number_of_hands(dataset, version):
    kit = make_kit(load_builtin())
    scene = sample_scene(example.example_rng(3, "training", 1, example.GEOMETRY), kit, QUICKSTART)
    rng = example.example_rng(3, "training", 1, example.LOOKS + version)
    photo, quality = photograph(rng, scene, kit, draw(scene, kit.surface))
    path = dataset / f"training/rgb/{1 + version * N_TRAIN:08d}.jpg"
    assert path.read_bytes() == encode_photo(photo, quality)
    read = json.loads((dataset / "training_verts.json").read_text())[1]
    np.testing.assert_allclose(read, scene.verts_m, atol=1e-6)


def test_the_number_of_workers_changes_no_byte(dataset, tmp_path):
    write_dataset(tmp_path / "set", N_TRAIN, N_TEST, 3, 2, QUICKSTART, backgrounds=4)
    assert contents(tmp_path / "set") == contents(dataset)


def start_rendering(out):
    options = ("--out", out, "--train", "200", "--test", "0", "--seed", "3", "--workers", "1")
    command = [sys.executable, "-m", "m3dhmr_jax.cli", "synthesize", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_takes_its_workers_along_and_is_started_anew_by_the_next(tmp_path, dataset):
    out = tmp_path / "set"
    process = start_rendering(out)
    wait_until((out / "training/rgb/00000001.jpg").exists, process)
    workers = workers_of(process)
    assert workers
    process.kill()
    process.communicate()
    assert not writer.is_finished(out)
    assert not list(out.glob("*.json"))
    wait_for_end(workers)
    write_dataset(out, N_TRAIN, N_TEST, 3, 1, QUICKSTART, backgrounds=4)
    assert contents(out) == contents(dataset)


def test_a_set_whose_lists_are_only_partly_named_is_not_taken_for_whole(tmp_path, dataset):
    """As a kill between two renames leaves it."""
    out = shutil.copytree(dataset, tmp_path / "set")
    (out / writer.ORIGIN).rename(out / writer.UNFINISHED)
    (out / "evaluation_xyz.json").rename(out / "evaluation_xyz.json.partial")
    assert not writer.is_finished(out)
    write_dataset(out, N_TRAIN, N_TEST, 3, 1, QUICKSTART, backgrounds=4)
    assert contents(out) == contents(dataset)


def test_a_worker_that_is_killed_is_named(tmp_path):
    process = start_rendering(tmp_path / "set")
    wait_until((tmp_path / "set/training/rgb/00000001.jpg").exists, process)
    for pid in workers_of(process):
        os.kill(pid, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 2
    assert f"error: {tmp_path / 'set'}: a process that rendered photos was killed" in said
    assert not writer.is_finished(tmp_path / "set")


def test_a_full_disk_is_named_and_does_not_look_finished(tmp_path, capsys):
    out = tmp_path / "set"
    options = ["--out", str(out), "--train", "9", "--test", "1", "--workers", "1"]
    with small_disk(out, 80_000):
        assert cli.main(["synthesize", *options]) == 2
        assert f"error: {out}: No space left on device" in capsys.readouterr().err
        assert not writer.is_finished(out)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--train", "-1"], "must not be negative"),
        (["--seed", "-1"], "must not be negative"),
        (["--workers", "0"], "at least 1"),
        (["--backgrounds", "3"], "1 or 4"),
        (["--train", "0", "--test", "0"], "empty dataset"),
    ],
)
def test_bad_requests_are_refused_with_code_2_and_nothing_written(
    tmp_path, capsys, options, reason
):
    out = tmp_path / "set"
    assert cli.main(["synthesize", "--out", str(out), *options]) == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()


def test_an_existing_dataset_is_not_overwritten(dataset, capsys):
    before = contents(dataset)
    assert cli.main(["synthesize", "--out", str(dataset), "--train", "1", "--test", "0"]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert contents(dataset) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["synthesize", "--out", str(tmp_path / "file"), "--train", "1"]) == 2
    assert cli.main(["synthesize", "--out", str(tmp_path / "file" / "below"), "--train", "1"]) == 2
    assert "choose a folder you may write" in capsys.readouterr().err


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "m3dhmr_jax.cli", "synthesize", "--out", "x", "--train", "-4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "train=-4" in done.stderr


def test_a_sheet_tiles_pictures_row_by_row(dataset):
    sheet = contact_sheet(dataset, rows=2, columns=3)
    fourth = cv2.imread(str(dataset / "training/rgb/00000003.jpg"))
    np.testing.assert_array_equal(sheet[224:448, :224], fourth)


def test_a_sheet_of_too_few_pictures_is_refused(dataset):
    with pytest.raises(ValueError, match="render more"):
        contact_sheet(dataset)


def test_a_set_says_what_it_was_made_from(dataset):
    origin = json.loads((dataset / writer.ORIGIN).read_text())
    assert origin == writer.origin_of(N_TRAIN, N_TEST, 3, QUICKSTART, 4, load_builtin())


@pytest.mark.parity
def test_a_set_may_be_rendered_from_mano(reference, tmp_path):
    file = reference / "mano" / "MANO_RIGHT.pkl"
    out = tmp_path / "set"
    options = ["--train", "2", "--test", "1", "--workers", "1", "--recipe", "quickstart"]
    assert cli.main(["synthesize", "--out", str(out), *options, "--hand", str(file)]) == 0
    hand = load_mano(file)
    for split in example.SPLITS:
        xyz, verts = (
            np.array(json.loads((out / f"{split}_{kind}.json").read_text()))
            for kind in ("xyz", "verts")
        )
        np.testing.assert_allclose(hand.joint_regressor @ verts, xyz, atol=3e-6)
    assert json.loads((out / writer.ORIGIN).read_text())["hand"] == hand_id(hand)


def test_a_hand_that_is_none_is_refused_and_nothing_written(tmp_path, capsys):
    (tmp_path / "hand.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    options = ["--out", str(tmp_path / "set"), "--hand", str(tmp_path / "hand.pkl")]
    assert cli.main(["synthesize", *options]) == 2
    assert "hand.pkl: refused, and nothing of it was run" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
