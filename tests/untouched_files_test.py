"""No call of a command's function changes or removes a file that existed before it.

For each file that a call writes into a new folder, the call is repeated where this name, or one
that only looks like the program's, belongs to the user.
"""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.numpy import save_file

from m3dhmr_jax.convert.run import convert_file
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.evaluate import official
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
def commands(freihand_folder, assets, monkeypatch):
    """A function for each command, which writes into the folder it is given."""

    def one_thread(count, hand):
        return ThreadPoolExecutor(count, initializer=lambda: example._worker.update(assets=assets))

    monkeypatch.setattr(writer, "_workers", one_thread)
    return {
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
