"""The programs that lie beside an exported ONNX network and run it without this package."""

from pathlib import Path

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import write_atomic

PROGRAMS = tuple(Path(__file__).with_name(name) for name in ("place.py", "example.py"))


def check_programs(folder: Path) -> None:
    """Raises UserError if the folder has other files of these names: they are not replaced."""
    for program in PROGRAMS:
        path = folder / program.name
        if path.exists() and path.read_bytes() != program.read_bytes():
            raise UserError(
                f"{path} is another file and is not replaced: {program.name} is written beside the "
                "network, so choose another folder, or delete it if it is of an earlier export"
            )


def write_programs(folder: Path) -> None:
    """Writes the programs, after `check_programs`."""
    for program in PROGRAMS:
        with write_atomic(folder / program.name) as partial:
            partial.write_bytes(program.read_bytes())
