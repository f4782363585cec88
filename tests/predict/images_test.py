import re
import struct

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.images import as_image, focal_35mm, read_image


def exif(orientation, focal_mm, order="<"):
    """TIFF: one folder (orientation, offset of the camera's), and the camera's (focal length)."""
    mark = b"II" if order == "<" else b"MM"
    offset = 8 + 2 + 24 + 4

    def entry(tag, kind, value):
        return struct.pack(order + "HHI", tag, kind, 1) + (
            struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        )

    head = mark + struct.pack(order + "HI", 42, 8)
    first = struct.pack(order + "H", 2) + entry(0x0112, 3, orientation) + entry(0x8769, 4, offset)
    camera = struct.pack(order + "H", 1) + entry(0xA405, 3, focal_mm)
    return head + first + bytes(4) + camera + bytes(4)


def with_exif(jpeg, content):
    body = b"Exif\x00\x00" + content
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.fixture
def pixels():
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    return cv2.resize(coarse, (100, 60), interpolation=cv2.INTER_LINEAR)


def save(path, pixels):
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels)
    return path


def test_read_image_converts_to_rgb_and_notes_it(pixels, tmp_path):
    grey = pixels[..., 0]
    transparent = np.concatenate([pixels[..., ::-1], grey[..., None]], axis=-1)
    colour = read_image(save(tmp_path / "colour.png", pixels))
    np.testing.assert_array_equal(colour.image, pixels)
    assert colour.note == ""
    assert colour.intrinsics is None
    one_channel = read_image(save(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(one_channel.image, grey[..., None].repeat(3, 2))
    assert "grey.png: the image has one channel" in one_channel.note
    alpha = read_image(save(tmp_path / "alpha.png", transparent))
    np.testing.assert_array_equal(alpha.image, pixels)
    assert "alpha.png: the image has an alpha channel" in alpha.note


@pytest.mark.parametrize("order", ["<", ">"])
def test_read_image_applies_exif_rotation_and_focal_length(pixels, tmp_path, order):
    jpeg = save(tmp_path / "plain.jpg", pixels).read_bytes()
    (tmp_path / "turned.jpg").write_bytes(with_exif(jpeg, exif(6, 26, order)))
    plain, turned = (read_image(tmp_path / f"{name}.jpg") for name in ("plain", "turned"))
    assert plain.intrinsics is None
    np.testing.assert_array_equal(turned.image, np.rot90(plain.image, -1))
    focal_px = 26 / np.hypot(36, 24) * np.hypot(60, 100)
    want = [[focal_px, 0, 29.5], [0, focal_px, 49.5], [0, 0, 1]]
    np.testing.assert_allclose(turned.intrinsics, want)


@pytest.mark.parametrize("content", [b"", b"II", b"nonsense", exif(1, 0), exif(1, 26)[:30]])
def test_focal_35mm_is_0_if_missing_or_truncated(content):
    assert focal_35mm(content) == 0


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 truncated"])
def test_read_image_rejects_other_files(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.jpg"):
        read_image(tmp_path / "x.jpg")


def test_images_must_be_8_bit(pixels, tmp_path):
    deep = save(tmp_path / "deep.png", pixels.astype(np.uint16) * 257)
    with pytest.raises(UserError, match=r"deep\.png: .*uint16"):
        read_image(deep)
    with pytest.raises(UserError, match="float32"):
        as_image(pixels.astype(np.float32))


@pytest.mark.parametrize("shape", [(5,), (0, 5, 3), (5, 5, 2), (1, 5, 5, 3)])
def test_as_image_rejects_other_shapes(shape):
    with pytest.raises(UserError, match=re.escape(str(shape))):
        as_image(np.zeros(shape, np.uint8))
