import json

import numpy as np
import pytest

from m3dhmr_jax.data.json_stream import read_lists, read_records
from m3dhmr_jax.errors import UserError

SHAPES = [(), (4,), (1, 3), (2, 3)]


def write(path, values, **style):
    path.write_text(json.dumps(values, **style))
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 1}])
def test_read_records_equals_json_module(tmp_path, shape, style):
    values = np.random.default_rng(0).normal(size=(11, *shape)) * 10.0 ** np.arange(-5, 6).reshape(
        -1, *[1] * len(shape)
    )
    path = write(tmp_path / "a.json", values.tolist(), **style)
    read = read_records(path, shape)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))
    np.testing.assert_array_equal(read_records(path, shape, np.float64), values)


def test_read_records_takes_integers_and_more_than_one_buffer(tmp_path):
    values = np.arange(60_000).reshape(-1, 2, 3)
    read = read_records(write(tmp_path / "a.json", values.tolist()), (2, 3))
    np.testing.assert_array_equal(read, values)


def test_read_records_of_empty_list_is_empty(tmp_path):
    assert read_records(write(tmp_path / "a.json", []), (5, 3)).shape == (0, 5, 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_read_records_counts_complete_records_of_truncated_file(tmp_path, shape):
    values = np.arange(4 * int(np.prod(shape, dtype=int))).reshape(4, *shape).tolist()
    text = json.dumps(values)
    path = tmp_path / "truncated.json"
    for end in range(1, len(text)):
        path.write_text(text[:end])
        complete = text[:end].count("]") // max(1, json.dumps(values[0]).count("]"))
        if not shape:
            complete = len(text[:end].replace(",", " ").strip("[ ").split())
        with pytest.raises(UserError, match=rf"truncated\.json: record {complete} "):
            read_records(path, shape)


@pytest.mark.parametrize(
    "bad",
    [
        [[1, 2], [3, 4]],
        [[1, 2, 3]],
        [1, 2, 3, 4, 5, 6],
        [[1, 2, 3], 4],
        [[1, 2, 3], 4, 5, 6],
        [1, 2, 3, [4, 5, 6]],
        [[1, 2, 3, 4], [5, 6]],
        [[[1, 2, 3]] * 2],
        [],
        7,
    ],
)
def test_read_records_names_record_of_another_shape(tmp_path, bad):
    good = [[1, 2, 3], [4, 5, 6]]
    for values in ([good, good, bad, good], [good, good, bad]):
        path = write(tmp_path / "a.json", values)
        with pytest.raises(UserError, match=r"a\.json: record 2 .*\(2, 3\)"):
            read_records(path, (2, 3))


@pytest.mark.parametrize(
    "bad",
    [
        *("NaN", "Infinity", "null", "true", '"4"', "[4]", "{}", "", "1 2", "1-2"),
        *("1e999", "1e39", ".5", "1.2.3", "1" * 400),
    ],
)
def test_read_records_names_what_is_not_a_finite_number(tmp_path, bad):
    path = tmp_path / "a.json"
    path.write_text(f"[[1, 2], [3, 4], [5, {bad}], [6, 7]]")
    with pytest.raises(UserError, match=r"a\.json: record 2 "):
        read_records(path, (2,))


@pytest.mark.parametrize("text", ["", "]", "{}", "1, 2]", "[[1, 2]] 3", "[[1, 2]]]", "null", '"x"'])
def test_read_records_rejects_what_is_not_a_list(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json: "):
        read_records(path, (2,))


def test_read_records_names_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json"):
        read_records(tmp_path / "absent.json", (2,))


def test_read_lists_equals_json_module(tmp_path):
    first, second = np.random.default_rng(0).normal(size=(3, 2)), np.arange(4.0)
    path = write(tmp_path / "a.json", [first.tolist(), second.tolist()])
    got = read_lists(path, {"xyz": (2,), "scale": ()}, np.float64)
    np.testing.assert_array_equal(got[0], first)
    np.testing.assert_array_equal(got[1], second)


@pytest.mark.parametrize("text", ["[]", "[[[1, 2]]]", "[[[1, 2]], [3], [4]]", "[[[1, 2]], [3], 4]"])
def test_read_lists_rejects_fewer_and_more_lists(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json.*2 lists"):
        read_lists(path, {"xyz": (2,), "scale": ()})


def test_read_lists_names_list_and_record(tmp_path):
    path = write(tmp_path / "a.json", [[[1, 2], [3, 4]], [5, [6]]])
    with pytest.raises(UserError, match=r"a\.json, list of scale: sample 1 "):
        read_lists(path, {"xyz": (2,), "scale": ()}, record="sample")
