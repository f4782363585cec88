import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import hand_id, load_builtin, load_mano
from m3dhmr_jax.runtime.files import DiskFullError
from m3dhmr_jax.synthetic import NATURAL, QUICKSTART, example, write_dataset, writer
from m3dhmr_jax.synthetic.imaging import encode_image
from m3dhmr_jax.synthetic.render import rasterise_scene, render_image
from m3dhmr_jax.synthetic.scene import prepare_assets, sample_scene
from tests.faults import small_disk, wait_for_end, wait_until, workers_of

N_TRAIN, N_TEST, SEED = 3, 1, 3
SETTINGS = dict(n_train=N_TRAIN, n_test=N_TEST, seed=SEED, recipe=QUICKSTART, backgrounds=4)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_check_manifest_names_differences(tmp_path):
    settings = writer.manifest(**SETTINGS, hand=load_builtin())
    writer.check_manifest(tmp_path, settings)  # Without a manifest there is nothing to compare.
    (tmp_path / writer.MANIFEST).write_text(json.dumps(settings))
    writer.check_manifest(tmp_path, settings)
    with pytest.raises(UserError, match=f"seed is {SEED} instead of 4"):
        writer.check_manifest(tmp_path, settings | {"seed": 4})


def test_check_manifest_accepts_manifests_without_newer_fields(tmp_path):
    settings = writer.manifest(**SETTINGS, hand=load_builtin())
    older = {k: v for k, v in settings["recipe"].items() if k != "clutter_probability"}
    (tmp_path / writer.MANIFEST).write_text(json.dumps(settings | {"recipe": older}))
    writer.check_manifest(tmp_path, settings)
    natural = writer.manifest(**SETTINGS | {"recipe": NATURAL}, hand=load_builtin())
    with pytest.raises(UserError, match="recipe"):
        writer.check_manifest(tmp_path, natural)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"n_train": -1}, "-1"),
        ({"seed": -2}, "-2"),
        ({"workers": 0}, "workers=0"),
        ({"backgrounds": 3}, "3"),
        ({"n_train": 0, "n_test": 0}, "train=0 and test=0"),
    ],
)
def test_write_dataset_rejects_bad_numbers_and_writes_nothing(tmp_path, change, value):
    with pytest.raises(UserError, match=value):
        write_dataset(tmp_path / "set", **SETTINGS | {"workers": 1} | change)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_write_dataset_rejects_file_in_place_of_folder(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=name):
        write_dataset(tmp_path / name, **SETTINGS, workers=1)


def test_write_dataset_does_not_overwrite(tmp_path):
    (tmp_path / "training_xyz.json").write_text("[]")
    before = contents(tmp_path) | {writer.LOCK: b""}
    with pytest.raises(UserError, match=r"training_xyz\.json"):
        write_dataset(tmp_path, **SETTINGS, workers=1)
    assert contents(tmp_path) == before


def write_in_thread(folder, settings):
    """In a thread of this process, which starts faster than a worker process."""

    def one_thread(count, hand):
        return ThreadPoolExecutor(count, initializer=example.start_worker, initargs=(hand,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_workers", one_thread)
        write_dataset(folder, **settings, workers=1)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_in_thread(tmp_path_factory.mktemp("synthetic") / "set", SETTINGS)


def test_natural_recipe_keeps_coverage_around_the_mask(tmp_path):
    folder = write_in_thread(tmp_path / "set", SETTINGS | {"recipe": NATURAL})
    names = {path.name for path in (folder / "training/coverage").iterdir()}
    assert names == {f"{i:08d}.png" for i in range(N_TRAIN)}
    for split, count in (("training", N_TRAIN), ("evaluation", N_TEST)):
        for i in range(count):
            coverage, mask = (
                cv2.imread(str(folder / split / kind), cv2.IMREAD_GRAYSCALE)
                for kind in (f"coverage/{i:08d}.png", f"mask/{i:08d}.jpg")
            )
            assert coverage.shape == (224, 224)
            assert (coverage[mask > 127] > 100).all()  # Half covered pixels are in the mask.
            assert (coverage > 0).sum() > (mask > 127).sum()


def test_unfinished_set_with_coverage_is_restarted(tmp_path):
    folder = write_in_thread(tmp_path / "set", SETTINGS | {"recipe": NATURAL})
    before = contents(folder)
    (folder / writer.MANIFEST).rename(folder / writer.UNFINISHED)
    assert contents(write_in_thread(folder, SETTINGS | {"recipe": NATURAL})) == before


def test_write_dataset_has_freihand_layout(dataset):
    names = {f"training/rgb/{i:08d}.jpg" for i in range(4 * N_TRAIN)}
    names |= {f"training/mask/{i:08d}.jpg" for i in range(N_TRAIN)}
    names |= {"evaluation/rgb/00000000.jpg", "evaluation/mask/00000000.jpg"}
    names |= {f"{s}_{k}.json" for s in example.SPLITS for k in writer.ANNOTATIONS}
    names |= {writer.MANIFEST, writer.LOCK}
    assert set(contents(dataset)) == names
    manifest = json.loads((dataset / writer.MANIFEST).read_text())
    assert manifest == writer.manifest(**SETTINGS, hand=load_builtin())


@pytest.mark.parametrize(("split", "count"), [("training", N_TRAIN), ("evaluation", N_TEST)])
def test_annotations_have_freihand_shapes(dataset, split, count):
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


def test_backgrounds_differ_between_versions(dataset):
    mask = cv2.imread(str(dataset / "training/mask/00000001.jpg"), cv2.IMREAD_GRAYSCALE) > 127
    paths = [dataset / f"training/rgb/{1 + v * N_TRAIN:08d}.jpg" for v in range(4)]
    images = np.stack([cv2.imread(str(path)) for path in paths]).astype(float)
    assert images.shape == (4, 224, 224, 3)
    assert mask.sum() > 500
    assert images[:, ~mask].mean(1).std(0).max() > 3


@pytest.mark.parametrize("version", [0, 3])
def test_image_i_shows_annotation_i_modulo_n(dataset, version):
    assets = prepare_assets(load_builtin())
    rng = example.example_rng(SEED, "training", 1, example.GEOMETRY)
    scene = sample_scene(rng, assets, QUICKSTART)
    rng = example.example_rng(SEED, "training", 1, example.APPEARANCE + version)
    image, quality = render_image(rng, scene, assets, rasterise_scene(scene, assets.surface))
    path = dataset / f"training/rgb/{1 + version * N_TRAIN:08d}.jpg"
    assert path.read_bytes() == encode_image(image, quality)
    read = json.loads((dataset / "training_verts.json").read_text())[1]
    np.testing.assert_allclose(read, scene.verts_m, atol=1e-6)


@pytest.mark.long
def test_write_dataset_does_not_depend_on_workers(dataset, tmp_path):
    write_dataset(tmp_path / "set", **SETTINGS, workers=2)
    assert contents(tmp_path / "set") == contents(dataset)


def start_rendering(out):
    code = "import sys; from m3dhmr_jax.synthetic import write_dataset as w; "
    code += f"w(sys.argv[1], 200, 0, seed={SEED}, workers=1)"
    command = [sys.executable, "-c", code, out]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_killed_run_ends_its_workers_and_is_restarted(tmp_path, dataset):
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
    write_dataset(out, **SETTINGS, workers=1)
    assert contents(out) == contents(dataset)


@pytest.mark.long
def test_run_killed_between_renames_is_restarted(tmp_path, dataset):
    out = shutil.copytree(dataset, tmp_path / "set")
    (out / writer.MANIFEST).rename(out / writer.UNFINISHED)
    (out / "evaluation_xyz.json").rename(out / "evaluation_xyz.json.partial")
    assert not writer.is_finished(out)
    write_dataset(out, **SETTINGS, workers=1)
    assert contents(out) == contents(dataset)


@pytest.mark.long
def test_killed_worker_is_reported(tmp_path):
    process = start_rendering(tmp_path / "set")
    wait_until((tmp_path / "set/training/rgb/00000001.jpg").exists, process)
    for pid in workers_of(process):
        os.kill(pid, signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert f"ChildProcessError: {tmp_path / 'set'}" in stderr
    assert not writer.is_finished(tmp_path / "set")


@pytest.mark.long
def test_full_disk_is_reported_and_leaves_dataset_unfinished(tmp_path):
    out = tmp_path / "set"
    with small_disk(out, 80_000):
        with pytest.raises(DiskFullError, match=f"{out}: No space left on device"):
            write_dataset(out, 9, 1, seed=0, workers=1)
        assert not writer.is_finished(out)


@pytest.mark.long
@pytest.mark.parity
def test_write_dataset_renders_mano(reference, tmp_path):
    hand = load_mano(reference / "mano" / "MANO_RIGHT.pkl")
    out = tmp_path / "set"
    write_dataset(out, 2, 1, SEED, 1, QUICKSTART, hand=hand)
    for split in example.SPLITS:
        xyz, verts = (
            np.array(json.loads((out / f"{split}_{kind}.json").read_text()))
            for kind in ("xyz", "verts")
        )
        np.testing.assert_allclose(hand.joint_regressor @ verts, xyz, atol=3e-6)
    assert json.loads((out / writer.MANIFEST).read_text())["hand"] == hand_id(hand)
