from pathlib import Path

import pyarrow as pa
import pytest

from m3dhmr_jax.predict.storage import find_photos, write_whole


def test_an_address_finds_what_a_path_finds(photos):
    place, paths = find_photos(str(photos))
    assert place.scheme == ""
    assert len(paths) == 11
    place, addresses = find_photos(f"file://{photos}")
    assert addresses == [f"file://{path}" for path in paths]
    assert find_photos(f"file://{photos}/more/*.png")[1] == [
        address for address in addresses if "/more/" in address
    ]
    with pytest.raises(FileNotFoundError, match="nothing: no photo there"):
        find_photos(str(photos / "nothing"))


def test_a_file_is_hidden_until_it_is_whole(tmp_path):
    class Broken(pa.fs.LocalFileSystem):
        def move(self, src, dest):
            assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
            assert Path(src).read_bytes() == b"all"
            super().move(src, dest)

    write_whole(Broken(), str(tmp_path / "file"), b"all")
    assert (tmp_path / "file").read_bytes() == b"all"
