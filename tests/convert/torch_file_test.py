import contextlib
import pickle
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from m3dhmr_jax.convert import torch_file
from m3dhmr_jax.errors import UserError
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
def test_read_keeps_dtypes_and_lists_the_rest(tmp_path, arrays, save):
    path = tmp_path / "weights.pth"
    save(path, {"model_state_dict": arrays, "epoch": 3, "rates": [0.5, None]})
    found = torch_file.read(path)
    assert list(found.arrays) == [f"model_state_dict.{name}" for name in arrays]
    for name, array in arrays.items():
        got = found.arrays[f"model_state_dict.{name}"]
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
    assert found.others == {"epoch": "3", "rates.0": "0.5", "rates.1": "None"}


def test_read_swaps_bytes_of_big_endian_file(tmp_path, arrays):
    save_zip(tmp_path / "big.pth", arrays, "big")
    for name, array in torch_file.read(tmp_path / "big.pth").arrays.items():
        np.testing.assert_array_equal(array, arrays[name])


def test_read_takes_safetensors(tmp_path, arrays):
    save_file(dict(arrays), tmp_path / "weights.safetensors")
    found = torch_file.read(tmp_path / "weights.safetensors")
    assert found.arrays.keys() == arrays.keys()
    np.testing.assert_array_equal(found.arrays["conv.weight"], arrays["conv.weight"])


def test_read_gives_views_of_shared_storage(tmp_path):
    value = {
        "full": tensor("0", "FloatStorage", 6, 0, (2, 3), (3, 1)),
        "transposed": tensor("0", "FloatStorage", 6, 0, (3, 2), (1, 3)),
        "part": tensor("0", "FloatStorage", 6, 1, (2, 2), (3, 1)),
        "last": tensor("0", "FloatStorage", 6, 5, (), ()),
    }
    found = torch_file.read(save_parts(tmp_path / "views.pth", value)).arrays
    np.testing.assert_array_equal(found["transposed"], found["full"].T)
    np.testing.assert_array_equal(found["part"], found["full"][:, 1:])
    assert found["last"] == 5
    with pytest.raises(ValueError, match="read-only"):
        found["full"][0] = 1


def test_read_takes_parameters_of_either_pytorch(tmp_path):
    data = tensor("0", "FloatStorage", 6, 0, (6,), (1,))
    value = {
        "today": Call(Name("torch._utils", "_rebuild_parameter"), (data, True, {})),
        "old": Call(Name("torch.nn.parameter", "Parameter"), (data,)),
    }
    found = torch_file.read(save_parts(tmp_path / "parameters.pth", value)).arrays
    np.testing.assert_array_equal(found["today"], np.arange(6))
    np.testing.assert_array_equal(found["old"], np.arange(6))


@FORMATS
def test_read_rejects_call_of_system_before_running_it(tmp_path, arrays, save):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pth"
    save(path, {"weights": arrays, "then": Call(Name("os", "system"), (f"touch {canary}",))})
    with pytest.raises(UserError, match=r"evil\.pth: .*os\.system"):
        torch_file.read(path)
    assert not canary.exists()


@FORMATS
def test_read_rejects_pickled_module_by_class_name(tmp_path, save):
    save(tmp_path / "module.pth", Call(Name("__main__", "MobRecon"), ()))
    with pytest.raises(UserError, match=r"module\.pth: .*__main__\.MobRecon"):
        torch_file.read(tmp_path / "module.pth")


def test_read_rejects_torch_jit_program(tmp_path, arrays):
    save_parts(tmp_path / "script.pt", {}, **{"constants.pkl": pickled(())})
    with pytest.raises(UserError, match=r"script\.pt: .*torch\.jit"):
        torch_file.read(tmp_path / "script.pt")


@FORMATS
def test_read_names_file_truncated_anywhere(tmp_path, arrays, save):
    path = tmp_path / "truncated.pth"
    save(path, arrays)
    content = path.read_bytes()
    for size in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"truncated\.pth: "):
            torch_file.read(path)


@FORMATS
def test_read_rejects_corruption_anywhere_or_ignores_it(tmp_path, arrays, save):
    path, rng = tmp_path / "corrupted.pth", np.random.default_rng(0)
    save(path, arrays)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        corrupted = content.copy()
        corrupted[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(corrupted.tobytes())
        with contextlib.suppress(UserError):  # Any other kind would be a traceback to a user.
            torch_file.read(path)


def test_read_checks_tensor_bytes(tmp_path):
    numbers = np.full(6, 1.25, np.float32)
    value = {"x": tensor("0", "FloatStorage", 6, 0, (6,), (1,))}
    path = save_parts(tmp_path / "flipped.pth", value, numbers)
    path.write_bytes(path.read_bytes().replace(numbers.tobytes(), (numbers * 2).tobytes()))
    with pytest.raises(UserError, match=r"tensor x: .*archive/data/0"):
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
def test_read_rejects_tensor_outside_its_storage(tmp_path, offset, shape, strides):
    value = {"x": tensor("0", "FloatStorage", 6, offset, shape, strides)}
    with pytest.raises(UserError, match=r"outside\.pth: tensor x: .*storage of 6"):
        torch_file.read(save_parts(tmp_path / "outside.pth", value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (tensor("0", "FloatStorage", 7, 0, (6,), (1,)), "24 bytes"),
        (tensor("0", "FloatStorage", 10**12, 0, (10**12,), (1,)), "24 bytes"),
        (tensor("0", "HalfStorage", 6, 0, (6,), (1,)), "24 bytes"),
        (tensor("0", "FloatStorage", -6, 0, (6,), (1,)), "24 bytes"),
        (tensor("1", "FloatStorage", 6, 0, (6,), (1,)), "data/1"),
        (tensor("../x", "FloatStorage", 6, 0, (6,), (1,)), "x"),
        (tensor("0", "FloatStorage", 6, 0, (6,), (1, 1)), "x"),
        (tensor("0", "FloatStorage", 6, 0, ("six",), (1,)), "pickle"),
        (tensor("0", "FloatStorage", 6, 0, 6, 1), "pickle"),
        (tensor("0", "FloatStorage", 6, 0, (0,) * 70, (1,) * 70), "tensor x"),
        (tensor("0", "QInt8Storage", 6, 0, (6,), (1,)), r"torch\.QInt8Storage"),
        (Stored(("module", "m", "f", "source")), "module"),
        (Stored(("storage", Name("torch", "FloatStorage"), "0", "cpu", 6, (1, 2, 3))), "storage"),
    ],
)
def test_read_rejects_inconsistent_tensor(tmp_path, value, why):
    with pytest.raises(UserError, match=why):
        torch_file.read(save_parts(tmp_path / "wrong.pth", {"x": value}))


def test_read_needs_every_storage_of_older_format(tmp_path):
    x = np.arange(6, dtype=np.float32)
    save_legacy(tmp_path / "old.pth", {"x": x, "y": x})
    path = tmp_path / "old.pth"
    keys = pickled(["0", "1"])
    for wrong, why in (
        (pickled(["0", "0"]), "1 of 2"),
        (pickled(["0", "2"]), "'2'"),
        (pickled([["0"], "1"]), "storage"),
    ):
        (tmp_path / "wrong.pth").write_bytes(path.read_bytes().replace(keys, wrong))
        with pytest.raises(UserError, match=why):
            torch_file.read(tmp_path / "wrong.pth")


def test_read_rejects_compressed_storage(tmp_path):
    value = pickled({"x": tensor("0", "FloatStorage", 10**6, 0, (10**6,), (1,))})
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", value, zipfile.ZIP_STORED)
        archive.writestr("archive/data/0", bytes(4 * 10**6))
    assert (tmp_path / "bomb.pth").stat().st_size < 10**4
    with pytest.raises(UserError, match=r"bomb\.pth: .*data/0"):
        torch_file.read(tmp_path / "bomb.pth")


def test_read_visits_each_container_once(tmp_path):
    row = b"}q\x00"  # Each of 60 dictionaries holds the one before twice.
    for i in range(1, 60):
        row += b"}q" + bytes([i])
        row += b"".join(b"X\x01\0\0\0" + k + b"h" + bytes([i - 1]) + b"s" for k in (b"a", b"b"))
    write_zip(tmp_path / "deep.pth", {"data.pkl": b"\x80\x02" + row + b"."})
    assert torch_file.read(tmp_path / "deep.pth").arrays == {}
    write_zip(tmp_path / "self.pth", {"data.pkl": b"\x80\x02]q\x00h\x00a."})
    assert torch_file.read(tmp_path / "self.pth").arrays == {}


def test_read_rejects_two_tensors_of_one_name(tmp_path):
    x = np.zeros(2, np.float32)
    save_zip(tmp_path / "twice.pth", {"a": {"b": x}, "a.b": x})
    with pytest.raises(UserError, match=r"twice\.pth: .*a\.b"):
        torch_file.read(tmp_path / "twice.pth")


def test_read_rejects_unknown_byte_order(tmp_path):
    with pytest.raises(UserError, match="middle"):
        torch_file.read(save_parts(tmp_path / "order.pth", {}, byteorder=b"middle"))


def test_read_names_other_files(tmp_path):
    path = tmp_path / "other.pth"
    for content in (b"", b"<html>not found</html>", pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"other\.pth: "):
            torch_file.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")
    with pytest.raises(UserError, match=r"other\.pth: "):
        torch_file.read(path)
    with pytest.raises(UserError, match=r"absent\.pth"):
        torch_file.read(tmp_path / "absent.pth")
