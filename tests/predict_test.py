import cv2
import numpy as np
import pytest

from m3dhmr_jax import predict
from m3dhmr_jax.camera import apply_affine, invert_affine
from m3dhmr_jax.data.augment import eval_view, warp
from m3dhmr_jax.predict import crop, crop_matrix, find_photos, intrinsics_of, read_photos

EXIF_TURNED = (  # An APP1 segment that says: turn by 90 degrees clockwise to see me upright.
    b"\xff\xe1\x00\x22Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08"
    b"\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def blotches(rng, height, width):
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def save(path, photo):
    assert cv2.imwrite(str(path), photo[..., ::-1] if photo.shape[-1] == 3 else photo)
    return path


def test_folders_give_their_photos_by_name_and_files_themselves(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.jpg").mkdir()
    given = [str(tmp_path / "notes.txt"), str(tmp_path)]
    names = [path.name for path in find_photos(given)]
    assert names == ["notes.txt", "a.png", "b.JPG", "c.webp"]


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.jpg: no such photo or folder of photos"):
        find_photos([str(tmp_path / "none.jpg")])
    with pytest.raises(FileNotFoundError, match=r"no photo in .* --images"):
        find_photos([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"no photo in \[\]"):
        find_photos([])


def test_photos_whose_results_would_overwrite_each_other_are_refused(tmp_path):
    for name in ("x.jpg", "x.png", "y.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="several photos are named x, and results"):
        find_photos([str(tmp_path)])


def test_a_photo_of_freihands_size_is_cropped_as_in_evaluation(rng, hand_batch):
    photo = blotches(rng, 224, 224)
    matrix = crop_matrix(photo, 128)
    view = eval_view(hand_batch._replace(image=photo[None].repeat(4, 0)), 128)
    np.testing.assert_allclose(invert_affine(matrix), view.img_from_crop[0], atol=1e-4)
    np.testing.assert_allclose(2 * crop(photo, matrix, 128) - 1, view.image[0], atol=0.02)


@pytest.mark.parametrize(("height", "width"), [(100, 60), (60, 100), (225, 225), (90, 90)])
def test_other_photos_are_cropped_to_the_square_around_them(rng, height, width):
    matrix = crop_matrix(blotches(rng, height, width), 64)
    side = max(height, width)
    ends = np.array([[(width - side) / 2, (height - side) / 2], [width / 2, height / 2]])
    np.testing.assert_allclose(
        apply_affine(ends.astype(np.float32), matrix), [[0, 0], [32, 32]], atol=1e-4
    )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 60), (110, 120)])
def test_crops_on_the_host_are_those_of_the_device(rng, height, width):
    """Where nothing is shrunk more than twofold; OpenCV reads at 32nds of a pixel."""
    photo = blotches(rng, height, width)
    matrix = crop_matrix(photo, 64)
    np.testing.assert_allclose(crop(photo, matrix, 64), warp(photo, matrix, 64), atol=0.02)


def test_crops_of_large_photos_are_smoothed_first(rng):
    """Single pixels of a chequered photo would come out as anything from black to white."""
    board = (np.indices((2000, 1500)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    got = crop(board, crop_matrix(board, 64), 64)
    inside = got[2:-2, 12:-12]
    np.testing.assert_allclose(inside, 0.5, atol=0.05)
    assert (got[:, :7] == 0).all()


def test_the_assumed_camera_sees_its_angle_across_the_shorter_side():
    k = intrinsics_of(np.zeros((300, 501, 3), np.uint8), 90.0)
    np.testing.assert_allclose(k, [[150, 0, 250], [0, 150, 149.5], [0, 0, 1]], rtol=1e-6)
    for bad in (0.0, 180.0, -5.0, float("nan")):
        with pytest.raises(ValueError, match=r"field_of_view_deg=.* must lie between 0 and 180"):
            intrinsics_of(np.zeros((300, 501, 3), np.uint8), bad)


def test_photos_are_read_in_colour_and_upright(rng, tmp_path):
    photo = blotches(rng, 60, 100)
    grey = photo[..., 0]
    see_through = np.concatenate([photo[..., ::-1], grey[..., None]], axis=-1)
    upright = save(tmp_path / "upright.jpg", photo).read_bytes()
    (tmp_path / "turned.jpg").write_bytes(upright[:2] + EXIF_TURNED + upright[2:])
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "empty.jpg").touch()
    paths = [
        save(tmp_path / "colour.png", photo),
        save(tmp_path / "grey.png", grey),
        save(tmp_path / "alpha.png", see_through),
        tmp_path / "text.jpg",
        tmp_path / "empty.jpg",
        tmp_path / "upright.jpg",
        tmp_path / "turned.jpg",
    ]
    unreadable = []
    read = {path.stem: photo for path, photo in read_photos(paths, unreadable)}
    np.testing.assert_array_equal(read["colour"], photo)
    np.testing.assert_array_equal(read["grey"], grey[..., None].repeat(3, 2))
    np.testing.assert_array_equal(read["alpha"], photo)
    np.testing.assert_array_equal(read["turned"], np.rot90(read["upright"], -1))
    assert [path.name for path in unreadable] == ["text.jpg", "empty.jpg"]


@pytest.fixture
def photos(rng, tmp_path):
    """Six photos of many kinds, more than a batch of four, and one text file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    save(folder / "freihand.jpg", blotches(rng, 224, 224))
    save(folder / "wide.png", blotches(rng, 60, 100))
    save(folder / "large.jpg", blotches(rng, 900, 700))
    save(folder / "grey.png", blotches(rng, 80, 80)[..., 0])
    save(folder / "alpha.png", np.full((50, 50, 4), 128, np.uint8))
    save(folder / "tiny.png", blotches(rng, 5, 3))
    (folder / "text.jpg").write_text("no photo")
    return folder


def vertices_and_faces(path):
    lines = path.read_text().splitlines()
    return [sum(line.startswith(kind) for line in lines) for kind in ("v ", "f ")]


def test_every_photo_gets_its_picture_and_mesh_and_the_rest_is_named(
    trained, tiny_config, photos, tmp_path, monkeypatch, capsys
):
    traced = []
    real = predict.predict
    monkeypatch.setattr(predict, "predict", lambda *a: traced.append(a[-1].shape) or real(*a))
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="1 of 7 files are not images and were left out") as error:
        predict.predict_photos(tiny_config(), trained[0], [str(photos)], out)
    assert str(photos / "text.jpg") in str(error.value)
    assert traced == [(4, 64, 64, 3)]  # Compiled once, for one shape.
    names = {p.stem for p in photos.iterdir()} - {"text"}
    assert {p.name for p in out.iterdir()} == {
        name for n in names for name in (f"{n}_overlay.jpg", f"{n}.obj")
    }
    for name in names:
        assert cv2.imread(str(out / f"{name}_overlay.jpg")) is not None
        assert vertices_and_faces(out / f"{name}.obj") == [778, 1538]
    assert f"6 hands written to {out}" in capsys.readouterr().out


def test_a_photo_is_answered_alike_in_any_company(trained, tiny_config, photos, tmp_path):
    few = [str(photos / name) for name in ("wide.png", "freihand.jpg", "grey.png")]
    for out, images in (("together", few), ("alone", few[:1])):
        predict.predict_photos(tiny_config(), trained[0], images, tmp_path / out)
    a, b = ((tmp_path / out / "wide.obj").read_text().split() for out in ("together", "alone"))
    numbers = [[float(x) for x in text if x not in "vf#"] for text in (a, b)]
    np.testing.assert_allclose(*numbers, atol=1e-4)
