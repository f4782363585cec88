"""What a module of a command provides."""

import argparse
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand. Libraries that take long to import are imported by `run`."""

    summary: str
    # The first one runs unchanged after `make quickstart`.
    examples: tuple[str, ...]
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
