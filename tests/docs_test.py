"""README and docs: links lead somewhere, commands parse, and names of code exist."""

import importlib.util
import itertools
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.systems import load_config
from m3dhmr_jax import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
TEXT = {page: page.read_text() for page in PAGES}


def commands(text):
    """The commands of all shell blocks as lists of words."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for is_separator, command in itertools.groupby(words, "&&".__eq__):
                if not is_separator:
                    yield list(command)


def commands_of(*start):
    found = [c for text in TEXT.values() for c in commands(text) if c[: len(start)] == list(start)]
    assert found
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT[page]):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", commands_of("m3dhmr"), ids=" ".join)
def test_console_commands_parse(command):
    cli.make_parser(command[1]).parse_intermixed_args(command[2:])


@pytest.mark.parametrize("command", commands_of("python", "main.py"), ids=" ".join)
def test_training_commands_name_configs_and_fields_that_exist(command):
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in command[2:])
    file = re.sub(r":(runs|m3dhmr_jax)/.*", "", flags["config"])  # What is there to start from.
    fields = load_config(file).to_dict()
    for flag in flags:
        if flag.startswith("config."):
            value = fields
            for name in flag.removeprefix("config.").split("."):
                assert name in value, flag
                value = value[name]


@pytest.mark.parametrize("command", commands_of("make"), ids=" ".join)
def test_make_targets_exist(command):
    assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_benchmarks_that_are_named_exist():
    for text in TEXT.values():
        for name in re.findall(r"python -m (benchmarks\.\w+)", text):
            if name != "benchmarks.NAME":
                assert importlib.util.find_spec(name), name


def test_the_readme_maps_the_paper_to_code_that_exists():
    readme = TEXT[ROOT / "README.md"]
    table = readme.split("## Paper → code")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 8
    for row in rows:
        files = re.findall(r"`([\w/]+\.py)`", row)
        names = re.findall(r"`(\w+)`", row)
        sources = [ROOT / folder / file for file in files for folder in (".", "m3dhmr_jax")]
        source = "".join(path.read_text() for path in sources if path.is_file())
        assert all(any((ROOT / d / f).is_file() for d in (".", "m3dhmr_jax")) for f in files), row
        for name in names:
            assert re.search(rf"(class|def) {name}\b|^{name}\b.* =", source, re.MULTILINE), name


def test_the_readme_is_two_screens():
    assert len(TEXT[ROOT / "README.md"].splitlines()) <= 150
