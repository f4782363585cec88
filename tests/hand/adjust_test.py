"""The shipped hand is what tools/hand/adjust.py creates from the file first published."""

import importlib.resources
import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = "m3dhmr_jax/hand/cc0_hand.npz"


@pytest.fixture(scope="module")
def adjust():
    spec = importlib.util.spec_from_file_location("adjust", ROOT / "tools/hand/adjust.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shipped():
    with (importlib.resources.files("m3dhmr_jax.hand") / "cc0_hand.npz").open("rb") as file:
        return dict(np.load(file))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The file as first committed; needs the history, which copies and shallow clones lack."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "log", "--diff-filter=A", "--format=%H", "--", FILE], capture_output=True, text=True
    )
    if found.returncode or not found.stdout.split():
        pytest.skip("no history of this repository here")
    commit = found.stdout.split()[-1]
    path = tmp_path_factory.mktemp("first") / "cc0_hand.npz"
    path.write_bytes(
        subprocess.run([*git, "show", f"{commit}:{FILE}"], capture_output=True, check=True).stdout
    )
    return path


def test_shipped_file_names_the_version_and_its_source(adjust, shipped):
    assert int(shipped["version"]) == adjust.VERSION
    assert str(shipped["source_sha256"]) == adjust.V1_SHA256


def test_recipe_reproduces_the_shipped_file(adjust, shipped, first, tmp_path):
    out = tmp_path / "out.npz"
    assert adjust.main([str(first), str(out)]) == 0
    created = dict(np.load(out))
    assert created.keys() == shipped.keys()
    for name, array in shipped.items():
        assert created[name].dtype == array.dtype, name
        if array.dtype == np.float32:  # Other builds of NumPy may round the last digit otherwise.
            np.testing.assert_allclose(created[name], array, rtol=0, atol=2e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(created[name], array, err_msg=name)


def test_adjust_rejects_another_file(adjust, tmp_path, capsys):
    other = tmp_path / "other.npz"
    np.savez(other, J=np.zeros((16, 3)))
    assert adjust.main([str(other), str(tmp_path / "out.npz")]) == 2
    assert adjust.V1_SHA256 in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
