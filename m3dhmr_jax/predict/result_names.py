"""Names of result files: one for each input, which no other input's files can have."""

import hashlib
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from m3dhmr_jax.predict.inputs import Input

# Of the 255 bytes that file systems allow; the rest is for the endings.
MAX_BYTES = 200
HASH_DIGITS = 8
# Characters that end a line, and bytes that are not UTF-8.
REPLACED_KINDS = ("Cc", "Cs", "Zl", "Zp")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def result_names(inputs: Sequence[Input]) -> dict[Input, str]:
    """What the names of each input's result files start with: its own name where possible.

    Folders become a part of the name, long names are shortened, and those that would meet are
    numbered: NAME, NAME-2, NAME-3. Names meet if they are equal or differ only in upper and lower
    case, which many disks ignore, unless one is a photo and one a video; or if one is the other
    with numbers added, as the mesh of hand 1 in a.jpg is a_1.obj.
    """
    names: dict[Input, str] = {}
    last_number: Counter[tuple[str, bool]] = Counter()
    taken: set[str] = set()
    taken_by_kind: set[tuple[str, bool]] = set()
    beginnings: set[str] = set()
    for each in inputs:
        first = _file_name(each.name)
        for number in itertools.count(last_number[first, each.is_video] + 1):
            name = first if number == 1 else f"{first}-{number}"
            folded = _folded(name)
            shorter = _without_numbers(folded)
            does_meet = (folded, each.is_video) in taken_by_kind or folded in beginnings
            if not (does_meet or shorter & taken):
                break
        names[each] = name
        last_number[first, each.is_video] = number
        taken.add(folded)
        taken_by_kind.add((folded, each.is_video))
        beginnings |= shorter
    return names


def _folded(name: str) -> str:
    """Equal for names that some disks take for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _without_numbers(name: str) -> set[str]:
    """The name without one or more of the numbers at its end: a_1_2 gives a_1 and a."""
    found = set()
    while match := re.fullmatch(r"(.+)_\d+", name):
        name = match[1]
        found.add(name)
    return found


def _file_name(name: str) -> str:
    text = "".join(
        REPLACEMENT if unicodedata.category(character) in REPLACED_KINDS else character
        for character in name.replace("/", "_").replace(os.sep, "_")
    )
    content = text.encode()
    if len(content) <= MAX_BYTES:
        return text
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:HASH_DIGITS]
    kept = content[: MAX_BYTES - HASH_DIGITS - 1].decode(errors="ignore")
    return f"{kept}-{digest}"
