import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.result_names import result_names


def inputs_of(*paths):
    return [Input(Path(path).stem, Path(path).name, Path(path)) for path in paths]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.jpg", "b.jpg", "b_left.jpg"], ["a", "b", "b_left"]),
        (["a.jpg", "a.mov"], ["a", "a"]),  # A live photo.
        (["x/1.jpg", "y/1.jpg", "z/1.jpg"], ["1", "1-2", "1-3"]),
        (["A.jpg", "a.png", "a-2.jpg"], ["A", "a-2", "a-2-2"]),
        (["e\u0301.jpg", "\u00e9.png"], ["e\u0301", "\u00e9-2"]),
        (["a.jpg", "a_1.jpg", "a_2_3.png"], ["a", "a_1-2", "a_2_3-2"]),
        (["a_1.jpg", "a.jpg"], ["a_1", "a-2"]),
        (["clip.mp4", "clip_000001.jpg"], ["clip", "clip_000001-2"]),
        (["IMG_0001.jpg", "IMG_0002.jpg"], ["IMG_0001", "IMG_0002"]),
        (["a.jpg", "a_overlay.jpg", "a_hands.mp4"], ["a", "a_overlay", "a_hands"]),
        (["a\nb.jpg", os.fsdecode(b"\xff.jpg")], ["a\ufffdb", "\ufffd"]),
    ],
)
def test_names_are_kept_unless_they_meet(paths, names):
    inputs = inputs_of(*paths)
    assert result_names(inputs) == dict(zip(inputs, names, strict=True))


def test_folders_become_a_part_of_the_name():
    inputs = [Input("left/1", "left/1.jpg", Path("p/left/1.jpg")), *inputs_of("left_1.jpg")]
    assert list(result_names(inputs).values()) == ["left_1", "left_1-2"]


def test_long_names_are_shortened_each_in_its_own_way():
    inputs = inputs_of(*("\u00e9" * 125 + end + ".jpg" for end in "ab"))
    names = list(result_names(inputs).values())
    assert len(set(names)) == 2
    assert all(name.startswith("\u00e9" * 90) for name in names)
    assert all(len(f"{name}_000000_10.obj".encode()) <= 255 for name in names)
    assert names == list(result_names(inputs).values())


def files_of(each, name):
    """What may be written for an input."""
    numbers = (0, 1, 10, 999)
    if each.is_video:
        frames = [f"{name}_{i:06d}" for i in (0, 1, 10, 1_000_000)]
        hands = [f"{frame}_{i}" for frame in frames for i in numbers]
        return {f"{name}_hands.mp4", *(f"{mesh}.obj" for mesh in frames + hands)}
    return {f"{name}_overlay.jpg", f"{name}.obj", *(f"{name}_{i}.obj" for i in numbers)}


STEMS = st.lists(st.sampled_from(["a", "A", "_", "0", "1", "000001", "-2", "\xdf", "\udcff", "\n"]))


@settings(deadline=None)
@given(st.lists(st.tuples(STEMS, st.sampled_from([".jpg", ".mp4"])), max_size=8, unique_by=str))
def test_no_two_inputs_share_a_file_on_any_disk(stems):
    inputs = inputs_of(*(f"{i}/{''.join(stem)}{end}" for i, (stem, end) in enumerate(stems)))
    files = [files_of(each, name) for each, name in result_names(inputs).items()]
    on_disk = [{file.casefold() for file in group} for group in files]
    assert not any(a & b for a, b in itertools.combinations(on_disk, 2))
    assert all("\n" not in file and file.encode() for group in files for file in group)
