import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the peers' numbers; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("REFERENCE_DIR", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference data: set REFERENCE_DIR to its folder (looked in {folder})")
    return folder
