import json
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# What one test has compiled, others and the programs they start (which read the environment) load.
CACHE = {
    "jax_compilation_cache_dir": tempfile.mkdtemp(prefix="m3dhmr_jax_tests_"),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
for name, value in CACHE.items():
    os.environ.setdefault(name.upper(), str(value))
    jax.config.update(name, type(value)(os.environ[name.upper()]))
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of the peers' numbers; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("REFERENCE_DIR", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference data: set REFERENCE_DIR to its folder (looked in {folder})")
    return folder


@pytest.fixture(scope="session")
def freihand_folder(tmp_path_factory) -> Path:
    """Ten training photos of five hands and seven test photos, noise, in the official layout."""
    simplejpeg = pytest.importorskip("simplejpeg")  # Tests of the network run without it.
    folder = tmp_path_factory.mktemp("freihand")
    rng = np.random.default_rng(0)
    for part, n, versions in (("training", 5, 2), ("evaluation", 7, 1)):
        (folder / part / "rgb").mkdir(parents=True)
        for i in range(n * versions):
            photo = rng.integers(0, 256, (224, 224, 3), np.uint8)
            photo[:] = photo[:8, :8].repeat(28, 0).repeat(28, 1)  # Large blotches, as JPEG likes.
            jpeg = simplejpeg.encode_jpeg(photo)
            (folder / part / "rgb" / f"{i:08d}.jpg").write_bytes(jpeg)
        shapes = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "scale": ()}
        for name, shape in shapes.items():
            values = rng.normal(size=(n, *shape)).tolist()
            (folder / f"{part}_{name}.json").write_text(json.dumps(values))
    (folder / "training" / "mask").mkdir()
    for i in range(5):
        mask = np.zeros((224, 224, 1), np.uint8)
        mask[40 + i : 140, 60:150] = 255
        jpeg = simplejpeg.encode_jpeg(mask, colorspace="GRAY", quality=95)
        (folder / "training" / "mask" / f"{i:08d}.jpg").write_bytes(jpeg)
    return folder
