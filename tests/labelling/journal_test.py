import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.labelling.journal import open_journal

SETTINGS = {"files": 2, "K": None, "thresholds": {"views": 6}}


def test_entries_survive_and_half_written_ones_do_not(tmp_path):
    out = tmp_path / "set"
    with open_journal(out, SETTINGS) as journal:
        journal.append({"source": "a.jpg"})
    path = journal.folder / "journal.jsonl"
    for half in (b'{"source": "b', b""):
        path.write_bytes(path.read_bytes() + half)
        with open_journal(out, SETTINGS) as journal:
            assert list(journal.entries()) == [{"source": "a.jpg"}]
            journal.append({"source": "b.jpg"})
        assert [e["source"] for e in journal.entries()] == ["a.jpg", "b.jpg"]
        path.write_bytes(path.read_bytes().replace(b'{"source":"b.jpg"}\n', b""))


def test_settings_that_were_half_written_are_written_again(tmp_path):
    with open_journal(tmp_path / "set", SETTINGS) as journal:
        pass
    path = journal.folder / "journal.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:5])
    with open_journal(tmp_path / "set", SETTINGS):
        assert path.read_bytes() == content


def test_other_settings_are_refused_by_name(tmp_path):
    with open_journal(tmp_path / "set", SETTINGS):
        pass
    with (
        pytest.raises(UserError, match="files is 3 and was 2"),
        open_journal(tmp_path / "set", SETTINGS | {"files": 3}),
    ):
        pass


def test_only_the_working_folder_is_removed(tmp_path):
    with open_journal(tmp_path / "set", SETTINGS) as journal:
        journal.remove()
    assert not (tmp_path / "set").exists()
    with open_journal(tmp_path / "set", SETTINGS) as journal:
        (tmp_path / "set" / "mine.txt").touch()
        journal.remove()
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_a_folder_of_others_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").touch()
    with (
        pytest.raises(UserError, match=r"other files, such as notes\.txt"),
        open_journal(tmp_path, SETTINGS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
