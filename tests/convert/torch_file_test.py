import contextlib
import pickle
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from m3dhmr_jax.convert import torch_file
from tests.convert.torch_writer import (
    Call,
    Name,
    Stored,
    pickled,
    save_legacy,
    save_zip,
    tensor,
    write_zip,
)

FORMATS = pytest.mark.parametrize("save", [save_zip, save_legacy])


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return OrderedDict(
        {
            "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
            "conv.half": rng.normal(size=5).astype(np.float16),
            "conv.brain": rng.normal(size=(2, 5)).astype(jnp.bfloat16),
            "double": rng.normal(size=(3, 2)),
            "norm.num_batches_tracked": np.array(7),
            "empty": np.zeros((0, 3), np.float32),
            "mask": np.array([True, False, True]),
        }
    )


SIX = np.arange(6, dtype=np.float32)


def save_parts(path, value, storage=SIX, **parts):
    """A zip file of one pickle and one storage, "0"."""
    write_zip(path, {"data.pkl": pickled(value), "data/0": storage.tobytes(), **parts})
    return path


@FORMATS
def test_tensors_come_back_with_their_types_and_the_rest_is_told(tmp_path, arrays, save):
    path = tmp_path / "weights.pth"
    save(path, {"model_state_dict": arrays, "epoch": 3, "rates": [0.5, None]})
    found = torch_file.read(path)
    assert list(found.arrays) == [f"model_state_dict.{name}" for name in arrays]
    for name, array in arrays.items():
        got = found.arrays[f"model_state_dict.{name}"]
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
    assert found.others == {"epoch": "3", "rates.0": "0.5", "rates.1": "None"}


def test_numbers_of_a_big_endian_machine_are_turned(tmp_path, arrays):
    save_zip(tmp_path / "big.pth", arrays, "big")
    for name, array in torch_file.read(tmp_path / "big.pth").arrays.items():
        np.testing.assert_array_equal(array, arrays[name])


def test_safetensors_are_read(tmp_path, arrays):
    save_file(dict(arrays), tmp_path / "weights.safetensors")
    found = torch_file.read(tmp_path / "weights.safetensors")
    assert found.arrays.keys() == arrays.keys()
    np.testing.assert_array_equal(found.arrays["conv.weight"], arrays["conv.weight"])


def test_tensors_that_share_a_storage_are_views_of_it(tmp_path):
    value = {
        "whole": tensor("0", "FloatStorage", 6, 0, (2, 3), (3, 1)),
        "turned": tensor("0", "FloatStorage", 6, 0, (3, 2), (1, 3)),
        "part": tensor("0", "FloatStorage", 6, 1, (2, 2), (3, 1)),
        "last": tensor("0", "FloatStorage", 6, 5, (), ()),
    }
    found = torch_file.read(save_parts(tmp_path / "views.pth", value)).arrays
    np.testing.assert_array_equal(found["turned"], found["whole"].T)
    np.testing.assert_array_equal(found["part"], found["whole"][:, 1:])
    assert found["last"] == 5
    with pytest.raises(ValueError, match="read-only"):
        found["whole"][0] = 1


def test_parameters_of_today_and_of_old_are_tensors(tmp_path):
    data = tensor("0", "FloatStorage", 6, 0, (6,), (1,))
    value = {
        "today": Call(Name("torch._utils", "_rebuild_parameter"), (data, True, {})),
        "old": Call(Name("torch.nn.parameter", "Parameter"), (data,)),
    }
    found = torch_file.read(save_parts(tmp_path / "parameters.pth", value)).arrays
    np.testing.assert_array_equal(found["today"], np.arange(6))
    np.testing.assert_array_equal(found["old"], np.arange(6))


@FORMATS
def test_nothing_in_a_file_is_run(tmp_path, arrays, save):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pth"
    save(path, {"weights": arrays, "then": Call(Name("os", "system"), (f"touch {canary}",))})
    with pytest.raises(ValueError, match=r"evil\.pth: refused: it contains os\.system, .* run"):
        torch_file.read(path)
    assert not canary.exists()


@FORMATS
def test_whole_modules_are_refused_by_the_name_of_their_class(tmp_path, save):
    save(tmp_path / "module.pth", Call(Name("__main__", "MobRecon"), ()))
    with pytest.raises(ValueError, match=r"module\.pth: refused: it contains __main__\.MobRecon"):
        torch_file.read(tmp_path / "module.pth")


def test_programs_of_torch_jit_are_refused(tmp_path, arrays):
    save_parts(tmp_path / "script.pt", {}, **{"constants.pkl": pickled(())})
    with pytest.raises(ValueError, match=r"torch\.jit\.save, not the state_dict"):
        torch_file.read(tmp_path / "script.pt")


@FORMATS
def test_a_file_cut_short_anywhere_is_named(tmp_path, arrays, save):
    path = tmp_path / "cut.pth"
    save(path, arrays)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.pth: .*(cut short|neither a file of torch)"):
            torch_file.read(path)


@FORMATS
def test_damage_anywhere_is_refused_or_harmless(tmp_path, arrays, save):
    path, rng = tmp_path / "damaged.pth", np.random.default_rng(0)
    save(path, arrays)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = whole.copy()
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(ValueError):  # Any other kind would be a traceback to a user.
            torch_file.read(path)


def test_a_flipped_bit_of_a_tensor_is_seen(tmp_path):
    numbers = np.full(6, 1.25, np.float32)
    value = {"x": tensor("0", "FloatStorage", 6, 0, (6,), (1,))}
    path = save_parts(tmp_path / "flipped.pth", value, numbers)
    path.write_bytes(path.read_bytes().replace(numbers.tobytes(), (numbers * 2).tobytes()))
    with pytest.raises(ValueError, match="tensor x: its part archive/data/0 has not the bytes"):
        torch_file.read(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (6, (), ()),
        (-1, (2,), (1,)),
        (5, (6,), (-1,)),
        (0, (-2, -3), (3, 1)),
        (0, (10**6, 10**6), (0, 0)),
        (0, (4, 4), (1, 1)),
        (10**30, (2,), (1,)),
    ],
)
def test_tensors_outside_of_their_storage_are_refused(tmp_path, offset, shape, strides):
    value = {"x": tensor("0", "FloatStorage", 6, offset, shape, strides)}
    with pytest.raises(ValueError, match=r"outside\.pth: tensor x: .* its storage of 6"):
        torch_file.read(save_parts(tmp_path / "outside.pth", value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (tensor("0", "FloatStorage", 7, 0, (6,), (1,)), "storage of 7 float32 has 24 bytes"),
        (tensor("0", "FloatStorage", 10**12, 0, (10**12,), (1,)), "has 24 bytes"),
        (tensor("0", "HalfStorage", 6, 0, (6,), (1,)), "storage of 6 float16 has 24 bytes"),
        (tensor("0", "FloatStorage", -6, 0, (6,), (1,)), "has 24 bytes"),
        (tensor("1", "FloatStorage", 6, 0, (6,), (1,)), "its part data/1 is missing"),
        (tensor("../x", "FloatStorage", 6, 0, (6,), (1,)), "missing"),
        (tensor("0", "FloatStorage", 6, 0, (6,), (1, 1)), "zip|strict"),
        (tensor("0", "FloatStorage", 6, 0, ("six",), (1,)), "not numeric"),
        (tensor("0", "FloatStorage", 6, 0, 6, 1), "damaged pickle"),
        (tensor("0", "FloatStorage", 6, 0, (0,) * 70, (1,) * 70), "maximum supported dimension"),
        (tensor("0", "QInt8Storage", 6, 0, (6,), (1,)), r"contains torch\.QInt8Storage"),
        (Stored(("module", "m", "f", "source")), "refers to"),
        (Stored(("storage", Name("torch", "FloatStorage"), "0", "cpu", 6, (1, 2, 3))), "share"),
    ],
)
def test_tensors_described_wrongly_are_refused(tmp_path, value, why):
    with pytest.raises(ValueError, match=why):
        torch_file.read(save_parts(tmp_path / "wrong.pth", {"x": value}))


def test_storages_of_the_older_format_must_all_be_there(tmp_path):
    x = np.arange(6, dtype=np.float32)
    save_legacy(tmp_path / "old.pth", {"x": x, "y": x})
    path = tmp_path / "old.pth"
    keys = pickled(["0", "1"])
    for wrong, why in ((pickled(["0", "0"]), "1 of 2 storages"), (pickled(["0", "2"]), "'2'")):
        (tmp_path / "wrong.pth").write_bytes(path.read_bytes().replace(keys, wrong))
        with pytest.raises(ValueError, match=why):
            torch_file.read(tmp_path / "wrong.pth")


def test_what_could_unpack_to_any_size_is_refused(tmp_path):
    value = pickled({"x": tensor("0", "FloatStorage", 10**6, 0, (10**6,), (1,))})
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", value, zipfile.ZIP_STORED)
        archive.writestr("archive/data/0", bytes(4 * 10**6))
    assert (tmp_path / "bomb.pth").stat().st_size < 10**4
    with pytest.raises(ValueError, match="data/0 is compressed"):
        torch_file.read(tmp_path / "bomb.pth")


def test_containers_in_themselves_and_names_without_end_are_no_trap(tmp_path):
    row = b"}q\x00"  # Each of 60 dictionaries holds the one before twice.
    for i in range(1, 60):
        row += b"}q" + bytes([i])
        row += b"".join(b"X\x01\0\0\0" + k + b"h" + bytes([i - 1]) + b"s" for k in (b"a", b"b"))
    write_zip(tmp_path / "deep.pth", {"data.pkl": b"\x80\x02" + row + b"."})
    assert torch_file.read(tmp_path / "deep.pth").arrays == {}
    write_zip(tmp_path / "self.pth", {"data.pkl": b"\x80\x02]q\x00h\x00a."})
    assert torch_file.read(tmp_path / "self.pth").arrays == {}


def test_two_tensors_of_one_name_are_refused(tmp_path):
    x = np.zeros(2, np.float32)
    save_zip(tmp_path / "twice.pth", {"a": {"b": x}, "a.b": x})
    with pytest.raises(ValueError, match=r"two things in it are called a\.b"):
        torch_file.read(tmp_path / "twice.pth")


def test_an_unknown_byte_order_is_refused(tmp_path):
    with pytest.raises(ValueError, match="byte order is 'middle'"):
        torch_file.read(save_parts(tmp_path / "order.pth", {}, byteorder=b"middle"))


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    for content in (b"", b"<html>not found</html>", pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"other\.pth: starts with .* neither"):
            torch_file.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")
    with pytest.raises(ValueError, match=r"not one of torch\.save"):
        torch_file.read(path)
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "absent.pth")
