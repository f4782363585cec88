"""What may import what, and who may read the config."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("m3dhmr_jax", "tfds_freihand")
# From the top down; a layer may import from itself and from layers below.
LAYERS = (
    *(
        "cli",
        "commands",
        "training",
        "evaluate",
        "labelling",
        "predict",
        "export",
        "convert",
        "tasks",
        "datasets",
    ),
    *("tfds_freihand", "builders", "inference", "fitting", "checkpoints", "config_fields"),
    *("losses", "metrics", "data", "synthetic", "models", "camera", "mesh", "hand", "visualize"),
    *("runtime", "math3d", "types", "errors"),
)
CONFIG_READERS = {
    "m3dhmr_jax/builders.py",
    "m3dhmr_jax/config_fields.py",
    "m3dhmr_jax/tasks.py",
    "m3dhmr_jax/training/optim.py",
    "m3dhmr_jax/training/schedule.py",
    "m3dhmr_jax/training/step.py",
    "m3dhmr_jax/training/train.py",
    "m3dhmr_jax/evaluate/run.py",
    "m3dhmr_jax/evaluate/report/writer.py",
    "m3dhmr_jax/checkpoints/run_config.py",  # Stores it.
    "m3dhmr_jax/export/trained.py",
}
# The package itself loads the predictor lazily.
FILES = {
    file.relative_to(ROOT).as_posix(): file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if file != ROOT / "m3dhmr_jax" / "__init__.py"
}


def module_of(name):
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer_of(module):
    first, *rest = module.split(".")
    return LAYERS.index(rest[0] if first == "m3dhmr_jax" else first)


def imports(file) -> Iterator[tuple[str, str]]:
    """(module, imported name) of each import from the packages, wherever in the file it is."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (((node.module or ""), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def imported_modules(file) -> set[str]:
    modules = {module_of(name) for name in FILES}
    found = set()
    for module, name in imports(file):
        submodule = f"{module}.{name}"
        found |= {submodule if submodule in modules else module} & modules
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    own = layer_of(module_of(name))
    assert not [module for module in imported_modules(FILES[name]) if layer_of(module) < own]


def test_files_have_no_import_cycle():
    below = {module_of(name): imported_modules(file) for name, file in FILES.items()}
    below = {module: found - {module} for module, found in below.items()}
    while leaves := {module for module, found in below.items() if not found & below.keys()}:
        below = {module: found for module, found in below.items() if module not in leaves}
    assert not below


def test_config_is_read_by_few():
    readers = {n for n, file in FILES.items() if ("m3dhmr_jax.types", "Config") in imports(file)}
    assert readers == CONFIG_READERS
