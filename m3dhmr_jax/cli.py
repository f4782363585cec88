"""The console command `m3dhmr`; `m3dhmr_jax.commands` has one module for each of its commands."""

import argparse
import sys
from collections.abc import Sequence

from m3dhmr_jax.commands import (
    bulk,
    compare,
    convert,
    demo,
    detector,
    export,
    label,
    predict,
    prepare,
    score,
    synthesize,
    webcam,
)

COMMANDS = {
    "predict": predict.COMMAND,
    "webcam": webcam.COMMAND,
    "demo": demo.COMMAND,
    "detector": detector.COMMAND,
    "label": label.COMMAND,
    "compare": compare.COMMAND,
    "score": score.COMMAND,
    "convert": convert.COMMAND,
    "export": export.COMMAND,
    "synthesize": synthesize.COMMAND,
    "prepare": prepare.COMMAND,
    "bulk": bulk.COMMAND,
}


def make_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        f"m3dhmr {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog="examples:\n" + "".join(f"  {example}\n" for example in command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    return parser


def _make_top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {command.summary}\n" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "m3dhmr",
        usage="m3dhmr COMMAND ...",
        description="Monocular 3D hand mesh recovery in JAX.",
        epilog=f"commands:\n{''.join(lines)}\nm3dhmr COMMAND --help shows options and examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exit codes as in `m3dhmr_jax.runtime.command_line`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        _make_top_parser().print_help(sys.stderr)
        sys.exit(2)
    name = _make_top_parser().parse_args(arguments[:1]).command
    # Positional arguments may stand between options, which subparsers of argparse do not support.
    options = make_parser(name).parse_intermixed_args(arguments[1:])
    from m3dhmr_jax.runtime.command_line import one_line_errors

    with one_line_errors():
        COMMANDS[name].run(options)


if __name__ == "__main__":
    main()
