import json

import numpy as np
import pytest

from m3dhmr_jax.data import json_stream
from m3dhmr_jax.data.json_stream import read_records

SHAPES = [(), (4,), (1, 3), (2, 3)]


@pytest.fixture(params=[7, 64, 1 << 20])
def block_bytes(request, monkeypatch):
    """From blocks shorter than a number to one block for the whole file."""
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", request.param)


def write(path, values, **style):
    path.write_text(json.dumps(values, **style))
    return path


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 1}])
def test_equals_the_json_module(tmp_path, shape, style):
    values = np.random.default_rng(0).normal(size=(11, *shape)) * 10.0 ** np.arange(-5, 6).reshape(
        -1, *[1] * len(shape)
    )
    path = write(tmp_path / "a.json", values.tolist(), **style)
    read = read_records(path, shape)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))


@pytest.mark.usefixtures("block_bytes")
def test_an_empty_list_has_no_records(tmp_path):
    assert read_records(write(tmp_path / "a.json", []), (5, 3)).shape == (0, 5, 3)


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_cut_anywhere_is_refused_and_its_whole_records_counted(tmp_path, shape):
    values = np.arange(4 * int(np.prod(shape, dtype=int))).reshape(4, *shape).tolist()
    text = json.dumps(values)
    for end in range(1, len(text)):
        path = tmp_path / "cut.json"
        path.write_text(text[:end])
        # A record counts when what follows it shows that it is complete.
        whole = text[:end].count("]") // max(1, json.dumps(values[0]).count("]"))
        if not shape:
            whole = text[:end].count(",")
        with pytest.raises(ValueError, match=r"cut\.json: the list ends in the middle") as error:
            read_records(path, shape)
        reported = int(str(error.value).split("middle: ")[1].split()[0])
        # A closing bracket at the very end is taken for the list's own.
        assert whole - reported in ((0, 1) if text[end - 1] == "]" else (0,))


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize(
    "bad", [[[1, 2], [3, 4]], [[1, 2, 3]], [1, 2, 3, 4, 5, 6], [[1, 2, 3], 4], [[[1, 2, 3]] * 2]]
)
def test_a_record_of_another_shape_is_named(tmp_path, bad):
    good = [[1, 2, 3], [4, 5, 6]]
    path = write(tmp_path / "a.json", [good, good, bad, good])
    with pytest.raises(ValueError, match=r"a\.json: record 2 is not a list of shape \(2, 3\)"):
        read_records(path, (2, 3))


@pytest.mark.parametrize(
    "bad",
    ["NaN", "Infinity", "null", '"4"', "[4]", "", "1 2", "1-2", "1e999", "1e39", ".5", "1.2.3"],
)
def test_what_is_no_finite_number_is_named(tmp_path, bad):
    path = tmp_path / "a.json"
    path.write_text(f"[[1, 2], [3, 4], [5, {bad}], [6, 7]]")
    with pytest.raises(ValueError, match=r"record 2 (is not a list of|holds something)"):
        read_records(path, (2,))


@pytest.mark.parametrize("text", ["", "]", "{}", "1, 2]"])
def test_what_is_no_list_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected a JSON list"):
        read_records(path, (2,))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        read_records(tmp_path / "absent.json", (2,))
