"""No call of a command's function changes or removes a file that existed before it.

For each file that a call writes into a new folder, the call is repeated where this name, or one
that only looks like the program's, belongs to the user.
"""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from m3dhmr_jax.convert.run import convert_file
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate import official
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.jax_networks import JaxNetwork
from m3dhmr_jax.predict.methods import NetworkMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.run import PredictOptions, predict_files
from m3dhmr_jax.runtime.results_folder import MANIFEST, mark_of
from m3dhmr_jax.synthetic import QUICKSTART, example, write_dataset, writer
from m3dhmr_jax.synthetic.contact_sheet import write_contact_sheet
from tests.convert.pytorch_files import BLOCKS, torchvision_resnet

prepare = pytest.importorskip("tfds_freihand.prepare").prepare
SCORES = dict.fromkeys(official._TEXT_KEYS, 0.5)
SETTINGS = dict(n_train=1, n_test=1, seed=3, workers=1, recipe=QUICKSTART)


@pytest.fixture(scope="module")
def assets():
    return example.prepare_assets(writer.load_builtin())


@pytest.fixture
def predict(tiny_network, tmp_path):
    """Predicts a photo and a video of this name into a folder, in place of its earlier results."""
    net = tiny_network
    network = JaxNetwork(net, load_builtin(), net.params, net.stats)
    predictor = HandMeshPredictor(NetworkMethod(network))
    pixels = np.zeros((40, 50, 3), np.uint8)

    def predict(out, name="a", replace=True):
        inputs = tmp_path / "inputs"
        inputs.mkdir(exist_ok=True)
        assert cv2.imwrite(str(inputs / f"{name}.png"), pixels)
        video = inputs / f"{name}.avi"
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (50, 40))
        for _ in range(2):
            writer.write(pixels)
        writer.release()
        files = [str(inputs / f"{name}{ending}") for ending in (".png", ".avi")]
        options = PredictOptions(files, track=False, freihand=True, mesh_kinds=("obj",))
        predict_files(lambda: predictor, options, out, replace=replace)

    return predict


@pytest.fixture
def commands(freihand_folder, assets, predict, monkeypatch):
    """A function for each command, which writes into the folder it is given."""

    def one_thread(count, hand):
        return ThreadPoolExecutor(count, initializer=lambda: example._worker.update(assets=assets))

    monkeypatch.setattr(writer, "_workers", one_thread)
    return {
        "predict": predict,
        "prepare": lambda out: prepare(freihand_folder, out),
        "synthesize": lambda out: write_dataset(out, **SETTINGS),
    }


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_untouched(call, folder, names):
    """Calls it where these files belong to the user: a result or an error, but all are kept."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    before = contents(folder)
    with contextlib.suppress(UserError):
        call(folder)
    after = contents(folder)
    changed = [str(name) for name, content in before.items() if after.get(name) != content]
    assert not changed


LOOKALIKES = {
    "predict": [
        [f"{MANIFEST}.partial", "hands.jsonl.partial", "b_overlay.jpg"],
        ["photos/a.obj"],
        ["A.obj"],
    ],
    "prepare": [
        ["freihand/incomplete.notes"],
        ["freihand/incomplete.ABC123_1.0.0/notes.txt"],
        ["freihand/1.0.0/notes.txt"],
        ["downloads/mine.zip"],
    ],
    "synthesize": [
        ["synthetic.json.partial", "training/rgb/mine.jpg", "training_notes.json"],
        ["training/rgb/mine.jpg"],
        ["evaluation.txt"],
        ["notes.txt"],
    ],
}


@pytest.mark.parametrize("command", LOOKALIKES)
def test_command_leaves_the_files_of_others(commands, command, tmp_path):
    call = commands[command]
    call(tmp_path / "new")
    written = sorted({str(name) for name in contents(tmp_path / "new")})
    for i, names in enumerate([*([name] for name in written), *LOOKALIKES[command]]):
        check_untouched(call, tmp_path / str(i), names)


def test_predict_replaces_only_its_own_results(predict, tmp_path):
    """The user adds to the results of `a` a file with the name of a result of `b`, or a likeness.

    Then `b` is predicted to the same folder, with and without --replace.
    """
    predict(tmp_path / "a")
    predict(tmp_path / "b", "b")
    names = {str(name) for name in contents(tmp_path / "b")}
    both = {str(name) for name in contents(tmp_path / "a")} & names
    assert both == {"faces.json", "hands.jsonl", MANIFEST}
    likenesses = ["a_overlay.jpg.bak", "A.obj", "a_1.obj", "deeper/a.obj", "m3dhmr_files_2.txt"]
    for name in sorted(names - both) + likenesses:
        out = tmp_path / f"out {name.replace('/', ' ')}"
        shutil.copytree(tmp_path / "a", out)
        mine = out / name
        mine.parent.mkdir(exist_ok=True)
        mine.write_bytes(b"mine")
        before = contents(out)
        with pytest.raises(UserError, match="--replace"):
            predict(out, "b", replace=False)
        assert contents(out) == before
        with contextlib.suppress(UserError):
            predict(out, "b")
        assert mine.read_bytes() == b"mine"
        is_in_the_way = name in names
        assert (out / "a.obj").exists() == (is_in_the_way and not name.endswith(".obj"))


def test_predict_takes_a_likeness_of_its_list_for_the_user_s(predict, tmp_path):
    out = tmp_path / "out"
    for i, content in enumerate(["a.obj\n", f"{mark_of('demo')}\na.obj\n", mark_of("predict")]):
        check_untouched(predict, out / str(i), ["a.obj", "hands.jsonl"])
        (out / str(i) / MANIFEST).write_text(content)
        before = contents(out / str(i))
        with pytest.raises(UserError, match="nothing of yours"):
            predict(out / str(i))
        assert contents(out / str(i)) == before


def test_synthesize_removes_only_its_own_files_of_an_interrupted_run(commands, tmp_path):
    """The mark is real, but the user has added files since."""
    out = tmp_path / "set"
    commands["synthesize"](out)
    (out / writer.MANIFEST).rename(out / writer.UNFINISHED)
    mine = ["training/rgb/mine.jpg", "training/mine/00000000.jpg", "training_notes.json"]
    check_untouched(commands["synthesize"], out, [*mine, "evaluation/rgb/00000007.jpg"])
    for name in (*mine, "evaluation/rgb/00000007.jpg"):
        (out / name).unlink()
    shutil.rmtree(out / "training" / "mine")
    commands["synthesize"](out)
    assert writer.is_finished(out)


def test_scores_and_sheets_are_new_files(tmp_path, commands):
    official.write_scores(tmp_path / "new" / "scores.json", SCORES)
    for name in ("scores.json", "scores.txt"):
        check_untouched(
            lambda out: official.write_scores(out / "scores.json", SCORES),
            tmp_path / name,
            [name],
        )
    commands["synthesize"](tmp_path / "set")
    sheet = tmp_path / "set" / "photo.jpg"
    check_untouched(
        lambda out: write_contact_sheet(out, sheet, rows=1, columns=1),
        tmp_path / "set",
        ["photo.jpg"],
    )


def test_scores_are_written_in_both_formats(tmp_path):
    official.write_scores(tmp_path / "a.json", SCORES)
    assert json.loads((tmp_path / "a.json").read_text())["xyz_mean3d"] == 0.5
    assert (tmp_path / "a.txt").read_text().startswith("xyz_mean3d: 50.000000\n")
    with pytest.raises(UserError, match=r"a\.csv must end in \.json"):
        official.write_scores(tmp_path / "a.csv", {})


@pytest.mark.long
def test_convert_writes_a_new_file(tmp_path):
    """Nor replaces its input."""
    file = tmp_path / "resnet18.safetensors"
    save_file(torchvision_resnet(BLOCKS[18]), file)
    for out in (tmp_path / "mine.safetensors", file):
        check_untouched(lambda _, out=out: convert_file(file, out), tmp_path, ["mine.safetensors"])
    convert_file(file, tmp_path / "new.safetensors")
