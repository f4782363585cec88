import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import (
    DiskFullError,
    check_new,
    expand_home,
    explain_disk_full,
    file_lock,
    readable,
    user_path,
    write_atomic,
)

WITHOUT_POSIX = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "resource", "termios", "pwd", "grp"}:
            raise ModuleNotFoundError(name, name=name)

for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
import m3dhmr_jax.runtime.files
m3dhmr_jax.HandMeshPredictor
"""


@expand_home
def kinds_of(path, *, text="", other=None):
    return path, text, other


def test_expand_home_replaces_paths_only(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    found = kinds_of(Path("~/a"), text="~/b", other=Path("~"))
    assert found == (Path("/home/someone/a"), "~/b", Path("/home/someone"))
    assert kinds_of(Path("a/~/b")) == (Path("a/~/b"), "", None)
    assert user_path("~/b") == Path("/home/someone/b")
    with pytest.raises(UserError, match="~nobody_of_this_name/a"):
        user_path("~nobody_of_this_name/a")


def test_check_new_rejects_whatever_has_the_name(tmp_path):
    check_new(tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match=f"{path} exists"):
            check_new(path)


def test_write_atomic_replaces_file(tmp_path):
    path = tmp_path / "new" / "scores.json"
    for content in ("old", "new"):
        with write_atomic(path) as partial:
            assert partial.parent == path.parent
            partial.write_text(content)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def write_half(path, error):
    with write_atomic(path) as partial:
        partial.write_text("half")
        raise error


def test_write_atomic_keeps_old_file_on_failure(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomic_names_full_disk(tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(DiskFullError, match=str(tmp_path)):
        write_half(path, OSError(errno.ENOSPC, "No space left on device"))
    assert not list(tmp_path.iterdir())


def test_explain_disk_full_passes_other_errors_on(tmp_path):
    with pytest.raises(PermissionError), explain_disk_full(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(DiskFullError, match="inner"), explain_disk_full(tmp_path):
        raise DiskFullError("inner: No space left on device")


def test_file_lock_excludes_others(tmp_path):
    entered = []

    def enter():
        with file_lock(tmp_path / "lock"):
            entered.append(True)

    other = threading.Thread(target=enter)
    with file_lock(tmp_path / "lock"):
        other.start()
        other.join(0.2)
        assert not entered
    other.join()
    assert entered


@pytest.mark.long
def test_predictor_imports_without_posix_modules():
    """As on Windows."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_readable_shows_bytes_that_are_not_utf_8():
    name = os.fsdecode(b"hand_\xff_\xc3\xa9.jpg")
    assert readable(name) == readable(Path(name)) == "hand_\\xff_\u00e9.jpg"
