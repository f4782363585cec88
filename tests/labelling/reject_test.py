import json

import numpy as np
import pytest

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.labelling import reject
from m3dhmr_jax.labelling.labelled_set import set_id
from m3dhmr_jax.labelling.reject import REJECTED, copy_without


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def rejecting(finished_set, tmp_path):
    """Writes a list of these records of the set, or of another one."""

    def write(*names, of=None):
        path = tmp_path / f"list_{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps({"set": of or set_id(finished_set), "rejected": names}))
        return path

    return write


def test_the_copy_lacks_the_rejected_hands_and_nothing_else(finished_set, rejecting, tmp_path):
    before, out = content(finished_set), tmp_path / "checked"
    copy_without([str(finished_set)], [rejecting("training/rgb/00000001.jpg")], out)
    assert content(finished_set) == before
    old, new = (json.loads((f / "labels.json").read_text()) for f in (finished_set, out))
    kept = [hand for hand in old["hands"] if hand["image"] != "training/rgb/00000001.jpg"]
    assert [h["source"] for h in new["hands"]] == [h["source"] for h in kept]
    for hand, copied in zip(kept, new["hands"], strict=True):
        assert hand | {"image": copied["image"]} == copied
        for kind in ("rgb", "mask"):
            name, copy = (each["image"].replace("rgb", kind) for each in (hand, copied))
            assert (finished_set / name).read_bytes() == (out / copy).read_bytes()
    (rejected,) = [hand for hand in new["left_out"] if hand["reason"] == REJECTED]
    assert rejected["source"] == old["hands"][1]["source"]
    assert new["counts"] == old["counts"] | {
        "training": 2,
        "mirrored": old["counts"]["mirrored"] - old["hands"][1]["mirrored"],
        "left_out": old["counts"]["left_out"] | {REJECTED: 1},
    }
    was, now = (freihand.read_annotations(f, "train") for f in (finished_set, out))
    np.testing.assert_array_equal(was.verts_m[[0, 2]], now.verts_m)
    np.testing.assert_array_equal(was.intrinsics[[0, 2]], now.intrinsics)


def test_several_lists_add_up(finished_set, rejecting, tmp_path):
    lists = [
        rejecting("training/rgb/00000000.jpg"),
        rejecting("evaluation/rgb/00000001.jpg", "training/rgb/00000002.jpg"),
    ]
    copy_without([str(finished_set)], lists, tmp_path / "checked")
    assert freihand.count_annotations(tmp_path / "checked", "train") == 1
    assert freihand.count_annotations(tmp_path / "checked", "test") == 1


def test_an_interrupted_copy_is_continued(finished_set, rejecting, tmp_path, monkeypatch):
    lists, out = [rejecting("training/rgb/00000000.jpg")], tmp_path / "checked"
    copy_without([str(finished_set)], lists, tmp_path / "whole")
    copy, left = reject._copy_crops, [3]

    def fail_later(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        copy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(reject, "_copy_crops", fail_later)
        with pytest.raises(KeyboardInterrupt):
            copy_without([str(finished_set)], lists, out)
    copy_without([str(finished_set)], lists, out)
    assert content(out) == content(tmp_path / "whole")


def test_lists_of_others_are_refused(finished_set, rejecting, tmp_path):
    out, given = tmp_path / "checked", [str(finished_set)]
    for lists, message in (
        ([rejecting("training/rgb/00000000.jpg", of="another")], "of another set"),
        ([rejecting("training/rgb/00000009.jpg")], "no record training/rgb/00000009"),
        ([rejecting(*(f"evaluation/rgb/{i:08d}.jpg" for i in range(2)))], "none left"),
        ([tmp_path / "none.json"], "No such file"),
        ([finished_set / "training_K.json"], "not a list that was saved"),
    ):
        with pytest.raises(UserError, match=message):
            copy_without(given, lists, out)
    with pytest.raises(UserError, match="one labelled set"):
        copy_without([*given, *given], [rejecting()], out)
    with pytest.raises(UserError, match="not a finished set"):
        copy_without([str(tmp_path)], [rejecting()], out)
    assert not out.exists()
    with pytest.raises(UserError, match="holds a finished set"):
        copy_without(given, [rejecting("training/rgb/00000000.jpg")], finished_set)
