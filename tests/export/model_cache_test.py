import pytest

from m3dhmr_jax.export import model_cache
from m3dhmr_jax.export.model_cache import CachedModel, cache_key, read_cached, write_cached

MODEL = CachedModel(bytes(range(256)), {"hand": "a", "hand_file": ""})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(model_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_a_model_is_found_under_its_key_alone(folder):
    key = cache_key(b"weights")
    assert read_cached(key) is None
    write_cached(key, MODEL)
    assert read_cached(key) == MODEL
    assert read_cached(cache_key(b"others")) is None
    assert sorted(path.name for path in folder.iterdir()) == [f"{key}.json", f"{key}.onnx"]


def test_keys_tell_parts_apart():
    keys = {cache_key(*parts) for parts in ([b"ab"], [b"a", b"b"], [b"ab", b""], [])}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".onnx", lambda content: bytes([content[0] ^ 1]) + content[1:]),
        (".onnx", lambda content: content[:-1]),
        (".onnx", lambda _: b"another program's"),
        (".json", lambda content: content[:-1]),
        (".json", lambda _: b"[]"),
        (".json", lambda _: b"{}"),
        (".json", lambda content: content.replace(b'"hand_file": ""', b'"hand_file": "x"')),
    ],
)
def test_what_is_damaged_is_not_found(folder, suffix, change):
    key = cache_key()
    write_cached(key, MODEL)
    path = (folder / key).with_suffix(suffix)
    intact = path.read_bytes()
    assert change(intact) != intact
    path.write_bytes(change(intact))
    assert read_cached(key) is None
    write_cached(key, MODEL)
    assert read_cached(key) == MODEL


def test_a_folder_that_cannot_be_written_to_costs_a_warning(folder):
    folder.write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"):
        write_cached(cache_key(), MODEL)
