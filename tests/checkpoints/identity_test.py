import os

import pytest

from m3dhmr_jax.checkpoints.identity import source_identity


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints."""
    for step in ("9", "10", "11.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step / "state").mkdir(parents=True)
        (tmp_path / "checkpoints" / step / "state" / "arrays").write_text(step)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_weights_file_is_its_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (list(source_identity(tmp_path / name)) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    "change",
    [
        lambda run: (run / "config.json").write_text("[]"),
        lambda run: (run / "checkpoints" / "10" / "state" / "arrays").write_text("longer"),
        lambda run: os.utime(run / "checkpoints" / "10" / "state" / "arrays", (0, 0)),
        lambda run: (run / "checkpoints" / "12").mkdir(),
    ],
)
def test_another_network_has_another_identity(run, change):
    before = list(source_identity(run))
    change(run)
    assert list(source_identity(run)) != before


@pytest.mark.parametrize(
    "name", ["9/state/arrays", "11.orbax-checkpoint-tmp/state/arrays", "notes"]
)
def test_other_files_do_not_matter(run, name):
    before = list(source_identity(run))
    (run / "checkpoints" / name).write_text("else")
    assert list(source_identity(run)) == before


def test_nothing_is_nothing(tmp_path):
    assert list(source_identity(tmp_path / "none")) == []
