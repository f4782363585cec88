from pathlib import Path

import pyarrow as pa
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.storage import Location, find_images, open_location


def test_find_images_finds_the_same_by_path_and_address(images):
    location, paths = find_images(str(images))
    assert location.scheme == ""
    assert len(paths) == 11
    location, addresses = find_images(f"file://{images}")
    assert addresses == [f"file://{path}" for path in paths]
    assert find_images(f"file://{images}/more/*.png")[1] == [
        address for address in addresses if "/more/" in address
    ]
    with pytest.raises(UserError, match="nothing"):
        find_images(str(images / "nothing"))


def test_open_location_rejects_unknown_schemes():
    with pytest.raises(UserError, match="gopher"):
        open_location("gopher://bucket/images")


def test_write_atomic_hides_incomplete_files(tmp_path):
    class Watched(pa.fs.LocalFileSystem):
        def move(self, src, dest):
            assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
            assert Path(src).read_bytes() == b"all"
            super().move(src, dest)

    Location(Watched(), str(tmp_path), "").write_atomic("file", b"all")
    assert (tmp_path / "file").read_bytes() == b"all"


def test_open_location_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_location("~/hands").path == str(tmp_path / "hands")
