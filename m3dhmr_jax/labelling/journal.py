"""What an unfinished set consists of: a working folder that an interrupted call continues.

`labelling.partial/` holds the crops of the hands kept so far, in the order in which they were
found, and `journal.jsonl`: the settings, then one entry for each image, written after its crops.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import file_lock

LABELS = "labels.json"  # Written last: a folder with it holds a finished set.
WORK, JOURNAL = "labelling.partial", "journal.jsonl"
KINDS = ("rgb", "mask")
Entry = dict[str, Any]


class Journal:
    """The entries of an unfinished set, and its crops."""

    def __init__(self, out: Path):
        self.folder = out / WORK
        self._path = self.folder / JOURNAL

    def crop_path(self, kind: str, number: int) -> Path:
        """Where the crop, or the mask, of a hand is until the set is finished."""
        return self.folder / kind / f"{number:08d}.jpg"

    def start(self, settings: Mapping[str, Any]) -> None:
        """Creates the journal, or checks that the one that is there has these settings.

        Raises:
            UserError: naming a difference.
        """
        for kind in KINDS:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            file.seek(0)
            complete = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(complete)  # A process may have been killed while it wrote a line.
        if not complete:
            self.append(dict(settings))
            return
        found, wanted = next(self._lines()), orjson.loads(orjson.dumps(dict(settings)))
        differences = [
            f"{name} is {wanted.get(name)!r} and was {found.get(name)!r}"
            for name in sorted(wanted.keys() | found.keys())
            if wanted.get(name) != found.get(name)
        ]
        if differences:
            raise UserError(
                f"{self.folder.parent} holds an unfinished set of other photos or options "
                f"({differences[0]}): repeat the command as it was, or choose another --out"
            )

    def append(self, entry: Entry) -> None:
        with self._path.open("ab") as file:
            file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def entries(self) -> Iterator[Entry]:
        """All entries, read one by one."""
        lines = self._lines()
        next(lines)  # The settings.
        return lines

    def _lines(self) -> Iterator[Entry]:
        with self._path.open("rb") as file:
            yield from map(orjson.loads, file)

    def remove(self) -> None:
        """Removes the working folder, and the set's folder if nothing else is in it."""
        shutil.rmtree(self.folder)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


@contextlib.contextmanager
def open_journal(out: Path, settings: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of a new set in `out`, or that of an unfinished one with the same settings.

    Raises:
        UserError: if `out` is a file or cannot be created, or holds a finished set, an unfinished
            one with other settings, or other files.
    """
    check_out(out)
    journal = Journal(out)
    try:
        journal.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {out}: {error.strerror}; choose a folder that you may write"
        ) from error
    with file_lock(journal.folder / "lock"):
        check_out(out)  # Another process may have finished it in the meantime.
        journal.start(settings)
        yield journal


def check_out(out: Path) -> None:
    """Raises UserError if `out` holds anything but an unfinished set."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file: choose a folder")
    if (out / LABELS).is_file():
        raise UserError(
            f"--out {out} holds a finished set, which is not replaced: choose another folder"
        )
    if not (out / WORK).is_dir() and (other := next(out.iterdir(), None)):
        raise UserError(f"--out {out} holds other files, such as {other.name}: choose a new folder")
