"""Tells trained arrays apart without reading them; needs no JAX."""

from collections.abc import Iterator
from pathlib import Path

# Of the config of a run, next to its checkpoints.
CONFIG_NAME = "config.json"


def source_identity(path: Path) -> Iterator[bytes]:
    """What differs between the networks of two weights files, or of two runs' newest checkpoints.

    The content of a weights file; the config of a run, and of each file of the checkpoint its
    name, size and time, since the arrays for training on are several times as large. Nothing if
    there is neither.
    """
    if path.is_file():
        yield path.read_bytes()
        return
    config = path / CONFIG_NAME
    if config.is_file():
        yield config.read_bytes()
    steps = [step for step in (path / "checkpoints").glob("*") if step.name.isdecimal()]
    newest = max(steps, key=lambda step: int(step.name), default=None)
    for file in sorted(newest.rglob("*")) if newest else ():
        status = file.stat()
        yield f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}".encode()
