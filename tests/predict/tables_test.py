import json

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.tables import read_table

ROWS = [("ä 1.jpg", 0.5, 2.0), ("b.c.jpg", 10.0, -4.0)]


def table(separator, comma=False):
    """As spreadsheets write it: spaces, capitals, an empty line and a column without a name."""
    lines = [["Image ", "X", " y", ""], *([name, f" {x}", str(y), ""] for name, x, y in ROWS)]
    if comma:
        lines[1:] = [[name, x.replace(".", ","), y, end] for name, x, y, end in lines[1:]]
    return "\r\n".join([separator.join(line) for line in lines] + [separator * 3, ""])


OBJECTS = [{"IMAGE": name, "x ": x, "y": y, "note": None} for name, x, y in ROWS]
LINES = "\n".join(map(json.dumps, OBJECTS)) + "\n\n"
FRAMES = "".join(
    json.dumps({"image": name, "x": -1, "hands": [{"x": x, "y": y}]}) + "\n" for name, x, y in ROWS
)
EMPTY_FRAME = json.dumps({"image": "none.jpg", "hands": []}) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("commas.csv", table(",").encode()),
        ("byte order mark.csv", table(",").encode("utf-8-sig")),
        ("excel unicode text.txt", table("\t").encode("utf-16")),
        ("big endian.csv", b"\xfe\xff" + table(";").encode("utf-16-be")),
        ("semicolons.csv", table(";", comma=True).encode()),
        ("tabs.tsv", table("\t", comma=True).encode()),
        ("quotes.csv", table(",").replace("ä 1.jpg", '"ä 1.jpg"').encode()),
        ("old mac.csv", table(",").replace("\r\n", "\r").encode()),
        ("list.json", json.dumps(OBJECTS, indent=1).encode()),
        ("list with mark.json", json.dumps(OBJECTS).encode("utf-8-sig")),
        ("lines.jsonl", LINES.encode()),
        ("lines.json", LINES.encode()),
        ("hands.jsonl", (FRAMES + EMPTY_FRAME).encode()),
        ("one line.jsonl", FRAMES.encode()),
    ],
)
def test_all_kinds_of_tables_have_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    rows = read_table(tmp_path / name)
    assert [(row.image(), row.number("x"), row.number("y")) for row in rows] == ROWS
    assert not any(row.values.keys() - {"image", "x", "y", "hands"} for row in rows)


def test_a_comma_in_the_name_of_a_file_stays(tmp_path):
    (tmp_path / "a.csv").write_text("image;x\n1,5.jpg;1,5\n")
    (row,) = read_table(tmp_path / "a.csv")
    assert (row.image(), row.number("x")) == ("1,5.jpg", 1.5)


def test_frames_and_sides_have_defaults(tmp_path):
    (tmp_path / "a.csv").write_text("image,frame,handedness\na,,\nb,3.0,Right\n")
    first, second = read_table(tmp_path / "a.csv")
    assert (first.frame(), first.side("left"), first.side(None)) == (0, "left", None)
    assert (second.frame(), second.side("left")) == (3, "right")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,x,X\na,1,2\n", r"header names x more than once"),
        ('{"x": 1, "X": 2}', r"\['x', 'X'\] .* more than once"),
        ("image,x\na,1,5\n", r"line 2 has 3 cells, but the header has 2.* semicolons"),
        ('image,x\n"a"b,1\n', "line 2: this is not CSV"),
        ("[{", "is not JSON"),
        ("[3]", "object 1 is 3: it must be an object"),
        ('{"x": 1}\n{"x": \n', "line 2 is not JSON"),
        ('{"hands": 3}', "hands is 3"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_read_table_rejects_what_is_not_a_table(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"a\.csv.*{message}"):
        read_table(path)


def test_read_table_rejects_unknown_encodings_and_missing_files(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("image,x\nä.jpg,1\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8 nor UTF-16"):
        read_table(path)
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(UserError, match="UTF-8 nor UTF-16"):
        read_table(path)
    with pytest.raises(UserError, match=r"b\.csv: no such file"):
        read_table(tmp_path / "b.csv")


@pytest.mark.parametrize("value", ['"a"', "true", "[1]", "NaN", "1e999", "1" + 400 * "0"])
def test_numbers_are_finite(tmp_path, value):
    (tmp_path / "a.json").write_text(f'[{{"x": 1, "frame": {value}}}, {{"x": {value}}}]')
    frame, x = read_table(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"object 2: x is .* finite number"):
        x.number("x")
    with pytest.raises(UserError, match=r"object 1: frame is"):
        frame.frame()
    with pytest.raises(UserError, match=r"object 2 has no image"):
        x.image()


@pytest.mark.parametrize("frame", ["-1", "0.5"])
def test_frames_are_counted(tmp_path, frame):
    (tmp_path / "a.csv").write_text(f"image,frame\na,{frame}\n")
    with pytest.raises(UserError, match=f"line 2: frame is {frame}: .* whole number from 0"):
        read_table(tmp_path / "a.csv")[0].frame()


def test_sides_are_known(tmp_path):
    (tmp_path / "a.csv").write_text("image,handedness\na,both\n")
    with pytest.raises(UserError, match="line 2: handedness is 'both'"):
        read_table(tmp_path / "a.csv")[0].side(None)
