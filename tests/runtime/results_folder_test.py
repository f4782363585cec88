import errno
import os

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime import results_folder
from m3dhmr_jax.runtime.files import DiskFullError
from m3dhmr_jax.runtime.results_folder import (
    MANIFEST,
    ResultsFolder,
    append_line,
    check_results_folder,
    free_folder,
    is_own_output,
    mark_of,
    read_manifest,
)


@pytest.fixture
def results(tmp_path):
    """A folder of an earlier call, with a file of the user."""
    folder = tmp_path / "out"
    with ResultsFolder(folder, "predict") as results:
        results.write("a.obj", b"old")
        results.write("b.obj", b"old")
    (folder / "mine.obj").write_text("mine")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def test_files_are_listed_before_they_are_written(tmp_path):
    with ResultsFolder(tmp_path / "a" / "out", "predict") as results:
        path = results.add("clip.mp4")
        assert not path.exists()
        assert read_manifest(results.path) == (mark_of("predict"), {"clip.mp4"})
        results.write("hand.obj", b"mesh")
    assert contents(tmp_path / "a" / "out") == {"hand.obj": b"mesh"}
    assert is_own_output(tmp_path / "a" / "out" / "hand.obj")
    assert is_own_output(tmp_path / "a" / "out" / MANIFEST)
    assert not is_own_output(tmp_path / "a" / "out" / "other.obj")


def test_files_that_exist_are_not_written(results):
    with ResultsFolder(results, "predict", replace=True) as folder:
        with pytest.raises(UserError, match=r"mine\.obj"):
            folder.write("mine.obj", b"new")
        folder.write("a.obj", b"new")
        with pytest.raises(UserError, match=r"a\.obj"):
            folder.write("a.obj", b"newer")
    assert contents(results) == {"mine.obj": b"mine", "a.obj": b"new"}


def test_results_are_replaced_on_request_only(results):
    before = contents(results)
    with pytest.raises(UserError, match=r"out-2, or add --replace"):
        ResultsFolder(results, "predict")
    with pytest.raises(UserError, match="nothing of yours"):
        ResultsFolder(results, "demo", replace=True)
    with pytest.raises(UserError, match=r"mine\.obj"):
        ResultsFolder(results, "predict", ["a.obj", "mine.obj"], replace=True)
    assert contents(results) == before
    with ResultsFolder(results, "predict", ["a.obj"], replace=True):
        assert contents(results) == {"mine.obj": b"mine"}
        assert read_manifest(results).names == set()


@pytest.mark.parametrize(
    "mark", ["", "my list\na.obj\n", "The files that m3dhmr predict wrote here", None]
)
def test_folders_without_the_mark_are_not_touched(tmp_path, mark):
    """None: the list is a link to that of another folder."""
    (tmp_path / "a.obj").write_text("mine")
    if mark is None:
        ResultsFolder(tmp_path / "other", "predict").add("a.obj")
        (tmp_path / MANIFEST).symlink_to(tmp_path / "other" / MANIFEST)
    else:
        (tmp_path / MANIFEST).write_text(mark)
    for out in (tmp_path, tmp_path / "a.obj"):
        with pytest.raises(UserError, match="nothing of yours"):
            ResultsFolder(out, "predict", replace=True)
    assert (tmp_path / "a.obj").read_text() == "mine"
    assert not is_own_output(tmp_path / MANIFEST)


@pytest.mark.parametrize(
    "name", ["../mine.obj", "/mine.obj", "link/mine.obj", "b/../mine.obj", ".", ""]
)
def test_edited_lists_never_lead_outside(results, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (results / "link").symlink_to(tmp_path / "elsewhere")
    for folder in (tmp_path, tmp_path / "elsewhere"):
        (folder / "mine.obj").write_text("mine")
    name = str(tmp_path / "mine.obj") if name.startswith("/") else name
    with (results / MANIFEST).open("a") as file:
        file.write(f"{name}\n")
    with pytest.raises(UserError, match=f"{MANIFEST} was edited"):
        ResultsFolder(results, "predict", replace=True)
    assert {"a.obj", "b.obj", "mine.obj"} <= {path.name for path in results.iterdir()}
    for folder in (tmp_path, tmp_path / "elsewhere"):
        assert (folder / "mine.obj").read_text() == "mine"


def test_links_and_folders_in_place_of_results_are_kept(results, tmp_path):
    (tmp_path / "mine.obj").write_text("mine")
    for name in ("a.obj", "b.obj"):
        (results / name).unlink()
    (results / "a.obj").symlink_to(tmp_path / "mine.obj")
    (results / "b.obj").mkdir()
    assert check_results_folder(results, "predict", replace=True) == [results / MANIFEST]
    for name in ("a.obj", "b.obj"):
        with pytest.raises(UserError, match=name):
            check_results_folder(results, "predict", [name], replace=True)


def test_an_incomplete_last_line_lists_nothing(results):
    with (results / MANIFEST).open("a") as file:
        file.write("mine.obj")
    assert read_manifest(results).names == {"a.obj", "b.obj"}
    assert not is_own_output(results / "mine.obj")


def test_names_cannot_be_two_lines(tmp_path):
    with (
        ResultsFolder(tmp_path / "out", "predict") as results,
        pytest.raises(ValueError, match="two lines"),
    ):
        results.add("a\nmine.obj")


def test_free_folder_is_the_first_new_or_empty_one(tmp_path):
    first = tmp_path / "hands"
    assert free_folder(first) == first
    first.mkdir()
    assert free_folder(first) == first
    (first / "mine.txt").touch()
    (tmp_path / "hands-2").touch()
    (tmp_path / "hands-3").symlink_to(tmp_path / "nothing")
    assert free_folder(first) == tmp_path / "hands-4"


def test_a_full_disk_leaves_no_incomplete_file(tmp_path, no_room):
    with ResultsFolder(tmp_path / "out", "predict") as results:
        results.write("a.obj", bytes(500))
        no_room(1000)
        with pytest.raises(DiskFullError, match="out"):
            results.write("b.obj", bytes(1001))
    assert set(contents(tmp_path / "out")) == {"a.obj"}


def test_lines_are_appended_completely_or_not_at_all(tmp_path, no_room):
    no_room(1000)
    with (tmp_path / "lines").open("xb", buffering=0) as file:
        for _ in range(2):
            append_line(file, b"a" * 399 + b"\n")
        with pytest.raises(DiskFullError, match=str(tmp_path)):
            append_line(file, b"b" * 399 + b"\n")
    assert (tmp_path / "lines").read_bytes() == 2 * (b"a" * 399 + b"\n")


def test_other_failures_name_the_file(tmp_path):
    (tmp_path / "a.obj").write_text("half")
    with (
        pytest.raises(OSError, match=r"Input/output error: .*a\.obj"),
        results_folder.removed_on_error(tmp_path / "a.obj"),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not (tmp_path / "a.obj").exists()


def test_folders_that_cannot_be_made_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*file/out: Not a directory"):
        ResultsFolder(tmp_path / "file" / "out", "predict")
