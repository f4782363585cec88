"""Tables of hands from files, as spreadsheets, detectors and this program write them.

- CSV with a header line, separated by commas, semicolons or tabs, in UTF-8 or UTF-16. Decimal
  commas are read where commas do not separate.
- JSON, a list of objects, or JSON lines, one object in each line. The objects in a list named
  `hands` are rows of their own, which repeat the rest of the outer object, as in hands.jsonl.

Names of columns are compared without capitals and surrounding spaces.
"""

import codecs
import csv
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import SIDES

SEPARATORS = ",;\t"


class Row(NamedTuple):
    """One hand, or one frame."""

    # By lower-case name; text in CSV. Empty cells and nulls are left out.
    values: dict[str, Any]
    # File and line, for messages.
    where: str

    def number(self, name: str) -> float:
        """A finite number.

        Raises:
            UserError: if the value is something else.
        """
        value = self.values[name]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{self.where}: {name} is {value!r}: it must be a finite number")
        return number

    def frame(self) -> int:
        """The column `frame`; 0 if it is missing.

        Raises:
            UserError: if it is not a whole number from 0.
        """
        frame = self.number("frame") if "frame" in self.values else 0
        if frame < 0 or frame != int(frame):
            raise UserError(f"{self.where}: frame is {frame:g}: it must be a whole number from 0")
        return int(frame)

    def image(self) -> str:
        """The column `image`, without folders.

        Raises:
            UserError: if it is missing.
        """
        if "image" not in self.values:
            raise UserError(f"{self.where} has no image: every row needs the name of its file")
        return Path(str(self.values["image"])).name

    def side(self, default: str | None) -> str | None:
        """The column `handedness`; `default` if it is missing.

        Raises:
            UserError: if it is not a side.
        """
        value = self.values.get("handedness", default)
        side = value.lower() if isinstance(value, str) else value
        if side not in (None, *SIDES):
            raise UserError(f"{self.where}: handedness is {value!r}: it must be one of {SIDES}")
        return side


def read_table(path: Path) -> list[Row]:
    """The rows of a file of any kind that the module's docstring lists.

    Raises:
        UserError: if the file cannot be read, is of another kind, names a column twice, or a row
            has more cells than the header.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    text = _text(path)
    return _json_rows(path, text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(path, text)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is neither UTF-8 nor UTF-16 text ({error}): in a spreadsheet, save it as "
            '"CSV UTF-8"'
        ) from error


def _csv_rows(path: Path, text: str) -> list[Row]:
    header = next(iter(text.strip().splitlines()), "")
    separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: this is not CSV ({error})") from error
    if not lines:
        return []
    columns = [name.lower() for name in lines[0][1]]
    repeated = {name for name in columns if name and columns.count(name) > 1}
    if repeated:
        raise UserError(f"{path}: its header names {', '.join(sorted(repeated))} more than once")
    rows = []
    for number, cells in lines[1:]:
        where = f"{path}, line {number}"
        if any(cells[len(columns) :]):
            raise UserError(
                f"{where} has {len(cells)} cells, but the header has {len(columns)}: numbers with "
                "decimal commas need semicolons between the columns"
            )
        named = dict(zip(columns, cells, strict=False))
        values = {name: cell for name, cell in named.items() if name and cell}
        if separator != ",":
            values |= {k: v.replace(",", ".") for k, v in values.items() if k != "image"}
        if values:
            rows.append(Row(values, where))
    return rows


def _json_rows(path: Path, text: str) -> list[Row]:
    try:
        content = [("", json.loads(text, object_pairs_hook=_lower_names))]
    except (ValueError, RecursionError) as error:
        lines = [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not all(line.lstrip().startswith("{") for _, line in lines):
            raise UserError(f"{path} is not JSON: {error}") from error
        content = [(where, _json_line(path, where, line)) for where, line in lines]
    if isinstance(content[0][1], list):
        content = [(f"object {i}", value) for i, value in enumerate(content[0][1], 1)]
    rows = []
    for where, value in content:
        name = f"{path}, {where}" if where else str(path)
        if not isinstance(value, dict):
            raise UserError(f"{name} is {value!r:.40}: it must be an object with named values")
        hands = value.get("hands", [{}])
        if not isinstance(hands, list) or not all(isinstance(hand, dict) for hand in hands):
            raise UserError(f"{name}: hands is {hands!r:.40}: it must be a list of objects")
        for hand in hands:
            joined = {k: v for k, v in (value | hand).items() if v is not None and v != ""}
            rows.append(Row(joined, name))
    return rows


def _json_line(path: Path, where: str, line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_lower_names)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, {where} is not JSON: {error}") from error


def _lower_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = {name.strip().lower(): value for name, value in pairs}
    if len(values) < len(pairs):
        raise ValueError(f"{[name for name, _ in pairs]} names a value more than once")
    return values
