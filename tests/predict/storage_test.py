from pathlib import Path

import pyarrow as pa
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.left_out import no_image
from m3dhmr_jax.predict.storage import Location, find_images, open_location


def test_find_images_finds_the_same_by_path_and_address(images):
    found = find_images(str(images))
    assert found.source.scheme == ""
    assert len(found.images) == 11
    assert (found.unnameable, found.left_out) == ([], {no_image(".txt"): 1})
    addresses = [each._replace(path=f"file://{each.path}") for each in found.images]
    assert find_images(f"file://{images}").images == addresses
    assert find_images(f"file://{images}/more/*.png").images == [
        address for address in addresses if "/more/" in address.path
    ]
    (file,) = find_images(str(images / "notes.txt")).images
    assert (file.name, file.n_bytes) == ("notes.txt", (images / "notes.txt").stat().st_size)
    assert file.mtime_ns == (images / "notes.txt").stat().st_mtime_ns
    with pytest.raises(UserError, match="nothing"):
        find_images(str(images / "nothing"))
    (images / "only").mkdir()
    (images / "only" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"no image found; left out: 1 \.txt"):
        find_images(str(images / "only"))


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


def test_a_write_that_fails_names_the_folder_and_leaves_nothing(tmp_path):
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^{tmp_path} cannot be written to: "):
        open_location(str(tmp_path)).write_atomic("file", b"all")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_open_location_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_location("~/hands").path == str(tmp_path / "hands")
