import struct

import cv2
import numpy as np
import pytest

from m3dhmr_jax.predict.images import as_photo, focal_35mm, read_photo


def exif(orientation, focal_mm, order="<"):
    """TIFF: one folder (orientation, place of the camera's), and the camera's (focal length)."""
    mark = b"II" if order == "<" else b"MM"
    place = 8 + 2 + 24 + 4

    def entry(tag, kind, value):
        return struct.pack(order + "HHI", tag, kind, 1) + (
            struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        )

    head = mark + struct.pack(order + "HI", 42, 8)
    first = struct.pack(order + "H", 2) + entry(0x0112, 3, orientation) + entry(0x8769, 4, place)
    camera = struct.pack(order + "H", 1) + entry(0xA405, 3, focal_mm)
    return head + first + bytes(4) + camera + bytes(4)


def with_exif(jpeg, content):
    body = b"Exif\x00\x00" + content
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.fixture
def photo():
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    return cv2.resize(coarse, (100, 60), interpolation=cv2.INTER_LINEAR)


def save(path, photo):
    assert cv2.imwrite(str(path), photo[..., ::-1] if photo.shape[-1] == 3 else photo)
    return path


def test_photos_are_read_in_colour_and_what_was_converted_is_said(photo, tmp_path):
    grey = photo[..., 0]
    see_through = np.concatenate([photo[..., ::-1], grey[..., None]], axis=-1)
    colour = read_photo(save(tmp_path / "colour.png", photo))
    np.testing.assert_array_equal(colour.image, photo)
    assert colour.note == ""
    assert colour.intrinsics is None
    one_channel = read_photo(save(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(one_channel.image, grey[..., None].repeat(3, 2))
    assert "grey.png: the image has one channel" in one_channel.note
    alpha = read_photo(save(tmp_path / "alpha.png", see_through))
    np.testing.assert_array_equal(alpha.image, photo)
    assert "alpha.png: the image has an alpha channel" in alpha.note


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_turns_photos_upright_and_tells_the_camera(photo, tmp_path, order):
    jpeg = save(tmp_path / "plain.jpg", photo).read_bytes()
    (tmp_path / "turned.jpg").write_bytes(with_exif(jpeg, exif(6, 26, order)))
    plain, turned = (read_photo(tmp_path / f"{name}.jpg") for name in ("plain", "turned"))
    assert plain.intrinsics is None
    np.testing.assert_array_equal(turned.image, np.rot90(plain.image, -1))
    focal_px = 26 / np.hypot(36, 24) * np.hypot(60, 100)
    want = [[focal_px, 0, 29.5], [0, focal_px, 49.5], [0, 0, 1]]
    np.testing.assert_allclose(turned.intrinsics, want)


@pytest.mark.parametrize("content", [b"", b"II", b"nonsense", exif(1, 0), exif(1, 26)[:30]])
def test_exif_that_tells_nothing_or_is_cut_off_is_left_alone(content):
    assert focal_35mm(content) == 0


@pytest.mark.parametrize("content", [b"", b"no photo", b"\xff\xd8\xff\xe0 cut off"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.jpg: not an image"):
        read_photo(tmp_path / "x.jpg")


def test_deep_images_are_refused(photo, tmp_path):
    deep = save(tmp_path / "deep.png", photo.astype(np.uint16) * 257)
    with pytest.raises(ValueError, match=r"deep\.png: the image is 16-bit .*must be uint8"):
        read_photo(deep)
    with pytest.raises(ValueError, match=r"not 8-bit \(float32\)"):
        as_photo(photo.astype(np.float32))


@pytest.mark.parametrize("shape", [(5,), (0, 5, 3), (5, 5, 2), (1, 5, 5, 3)])
def test_arrays_that_are_no_pictures_are_refused(shape):
    with pytest.raises(ValueError, match="has shape"):
        as_photo(np.zeros(shape, np.uint8))
