import json

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic.camera import project
from m3dhmr_jax.synthetic.photo_set import LAYOUTS, TRUTH, arrange, write_photos
from m3dhmr_jax.synthetic.placement import check_placement

SIZE_PX = (192, 144)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("photos") / "set"
    write_photos(out, 7, seed=1, size_px=SIZE_PX)
    return out


@pytest.fixture(scope="module")
def truth(folder):
    return json.loads((folder / TRUTH).read_text())


def shape_of(path):
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return image.shape


def test_write_photos_covers_sizes_sides_and_formats(folder, truth):
    sides = [[hand["handedness"] for hand in row["hands"]] for row in truth]
    assert [len(each) for each in sides[:6]] == [2, 1, 1, 4, 2, 0]
    assert 1 <= len(sides[6]) <= 5
    assert set(sides[0]) == {"left", "right"}
    assert [shape_of(folder / row["file"]) for row in truth] == [(144, 192)] * 4 + [(192, 144)] + [
        (144, 192)
    ] * 2
    largest = [max((max(h["bbox_px"][2:]) for h in row["hands"]), default=0) for row in truth]
    assert largest[1] > 0.45 * 192
    assert 0.05 * 192 < largest[2] < 0.11 * 192
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [TRUTH, *(row["file"] for row in truth)]
    )


def test_truth_is_consistent(truth):
    regressor = load_builtin().joint_regressor
    for row in truth:
        for hand in row["hands"]:
            joints_m, verts_m, k = (
                np.array(values) for values in (hand["joints_m"], hand["verts_m"], row["K"])
            )
            np.testing.assert_allclose(regressor @ verts_m, joints_m, atol=3e-6)
            np.testing.assert_allclose(project(joints_m, k), hand["landmarks_px"], atol=0.01)
            x, y, width, height = hand["bbox_px"]
            points_px = project(verts_m, k)
            np.testing.assert_allclose(points_px.min(0), [x, y], atol=0.01)
            np.testing.assert_allclose(points_px.max(0), [x + width, y + height], atol=0.01)


def test_write_photos_gives_the_same_bytes_and_depends_on_the_seed(folder, tmp_path):
    write_photos(tmp_path / "a", 1, seed=1, size_px=SIZE_PX)
    write_photos(tmp_path / "b", 1, seed=2, size_px=SIZE_PX)
    name = f"0000_{LAYOUTS[0].name}.jpg"
    first, again, other = (
        (each / name).read_bytes() for each in (folder, tmp_path / "a", tmp_path / "b")
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("size_px", [(192, 144), (1920, 1080), (300, 300)])
def test_layouts_fit_photos_of_any_format(size_px):
    for layout in LAYOUTS:
        size = size_px[::-1] if layout.portrait else size_px
        for placement in arrange(layout, size):
            check_placement(placement, size)
            low = np.array(placement.centre_px) - placement.size_px / 2
            assert (low > -0.01 * max(size)).all()
            assert (low + placement.size_px < 1.01 * np.array(size)).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"count": 0}, "count=0"),
        ({"seed": -1}, "seed=-1"),
        ({"size_px": (144, 192)}, "longer side first"),
        ({"size_px": (64, 48)}, r"\(64, 48\)"),
    ],
)
def test_write_photos_rejects_bad_numbers_and_writes_nothing(tmp_path, change, text):
    with pytest.raises(UserError, match=text):
        write_photos(tmp_path / "set", **{"count": 1, "seed": 0, "size_px": SIZE_PX} | change)
    assert not (tmp_path / "set").exists()


def test_write_photos_rejects_file_in_place_of_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_photos(tmp_path / "file", 1, size_px=SIZE_PX)
