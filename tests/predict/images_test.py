import io
import os
import re
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.TiffImagePlugin
import pillow_heif
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import images
from m3dhmr_jax.predict.images import as_image, decode_image, read_image

pillow_heif.register_heif_opener()  # To write HEIC.
# Mean error; these kinds are lossy.
TOLERANCE = {"AVIF": 5, "GIF": 15, "HEIF": 5, "JPEG": 5}


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
    (tmp_path / "rotated.jpg").write_bytes(with_exif(jpeg, exif(6, 26, order)))
    plain, rotated = (read_image(tmp_path / f"{name}.jpg") for name in ("plain", "rotated"))
    assert plain.intrinsics is None
    np.testing.assert_array_equal(rotated.image, np.rot90(plain.image, -1))
    focal_px = 26 / np.hypot(36, 24) * np.hypot(60, 100)
    want = [[focal_px, 0, 29.5], [0, focal_px, 49.5], [0, 0, 1]]
    np.testing.assert_allclose(rotated.intrinsics, want)


@pytest.mark.parametrize("content", [b"", b"II", b"nonsense", exif(1, 0), exif(1, 26)[:30]])
def test_read_image_ignores_missing_and_truncated_exif(pixels, tmp_path, content):
    jpeg = save(tmp_path / "plain.jpg", pixels).read_bytes()
    (tmp_path / "odd.jpg").write_bytes(with_exif(jpeg, content))
    plain, odd = (read_image(tmp_path / f"{name}.jpg") for name in ("plain", "odd"))
    assert odd.intrinsics is None
    np.testing.assert_array_equal(odd.image, plain.image)


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


def saved(pixels, kind, mode="RGB", **options):
    """The content of an image file; lossless if the kind can be."""
    file = io.BytesIO()
    quality = {"WEBP": {"lossless": True, "exact": True}, "JPEG2000": {}}.get(kind, {"quality": 97})
    image = PIL.Image.fromarray(pixels).convert(mode)
    image.save(file, kind, **({} if kind in ("BMP", "GIF", "PPM", "TIFF") else quality), **options)
    return file.getvalue()


def decoded(content, name="x"):
    return decode_image(np.frombuffer(content, np.uint8), name)


def pillow_exif(orientation, focal_mm):
    data = PIL.Image.Exif()
    data[0x0112] = orientation
    data.get_ifd(0x8769)[0xA405] = focal_mm
    return data.tobytes()


KINDS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
def test_decode_image_reads_each_kind_whatever_its_name_says(pixels, kind):
    found = decoded(saved(pixels, kind), "x.png")
    assert found.image.shape == pixels.shape
    assert np.abs(found.image.astype(int) - pixels).mean() <= TOLERANCE.get(kind, 0)
    assert (found.note, found.intrinsics) == ("", None)
    assert found.image.flags.writeable


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_image_turns_each_kind_by_its_own_marks(pixels, kind, orientation):
    plain = decoded(saved(pixels, kind)).image.astype(int)
    turned = decoded(saved(pixels, kind, exif=pillow_exif(orientation, 26)))
    want = [
        plain,
        plain[:, ::-1],
        plain[::-1, ::-1],
        plain[::-1],
        plain.swapaxes(0, 1),
        np.rot90(plain, -1),
        np.rot90(plain, 2).swapaxes(0, 1),
        np.rot90(plain),
    ][orientation - 1]
    assert turned.image.shape == want.shape
    assert np.abs(turned.image - want).mean() < (2 if kind in ("AVIF", "HEIF") else 0.01)
    assert turned.intrinsics is not None
    np.testing.assert_allclose(turned.intrinsics[0, 0], 26 / np.hypot(36, 24) * np.hypot(60, 100))


def test_decode_image_reads_cmyk_without_an_alpha_channel(pixels):
    for kind in ("JPEG", "TIFF"):
        found = decoded(saved(pixels, kind, "CMYK"))
        assert "alpha" not in found.note
        assert "CMYK" in found.note
        assert np.abs(found.image.astype(int) - pixels).mean() < 2


def ink_profile(cyan_lab):
    """An ICC profile in which cyan has this colour, black hides everything, and no other ink does.

    Its table has two values of each of C, M, Y and K, the first varying slowest.
    """
    fixed = struct.Struct(">i")
    colours = np.array([[255, 128, 128]] * 16, np.uint8)
    colours[8:] = np.round(np.array(cyan_lab) * [2.55, 1, 1] + [0, 128, 128])
    colours[1::2] = [0, 128, 128]
    identity = b"".join(fixed.pack(each << 16) for each in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4
    table += colours.tobytes() + ramp * 3
    white = b"".join(fixed.pack(round(each * 65536)) for each in (0.9642, 1, 0.8249))
    size = 128 + 4 + 12 + len(table)
    header = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header = (header + bytes(12) + b"acsp").ljust(68, b"\0") + white
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    return header.ljust(128, b"\0") + tags + table


def test_decode_image_converts_inks_by_their_profile():
    """Cyan of Lab (60, -35, -45) is about (0, 164, 224) in sRGB, and (0, 255, 255) without it."""
    inks = PIL.Image.new("CMYK", (64, 48), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        file = io.BytesIO()
        inks.save(file, kind, icc_profile=ink_profile((60, -35, -45)))
        found = decoded(file.getvalue())
        assert np.abs(found.image.astype(int) - [0, 164, 224]).max() < 8


def test_decode_image_notes_an_invalid_profile(pixels):
    of_rgb = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    for profile in (b"none", of_rgb):
        found = decoded(saved(pixels, "JPEG", "CMYK", icc_profile=profile))
        assert "its colour profile is invalid" in found.note
        assert np.abs(found.image.astype(int) - pixels).mean() < 2


def test_decode_image_notes_only_alpha_that_hides_something(pixels):
    frames = [PIL.Image.fromarray(np.roll(pixels, i, 1)) for i in range(3)]
    moving = {"save_all": True, "append_images": frames[1:]}
    for kind in ("WEBP", "PNG", "GIF"):
        file = io.BytesIO()
        frames[0].save(file, kind, **moving)
        assert "alpha" not in decoded(file.getvalue()).note
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    assert decoded(saved(opaque, "PNG", "RGBA")).note == ""
    assert "alpha" in decoded(saved(opaque // 2, "WEBP", "RGBA")).note


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_decode_image_notes_later_frames(pixels, kind):
    frames = [PIL.Image.fromarray(np.roll(pixels, 9 * i, 1)) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
    found = decoded(file.getvalue(), "x.tif")
    assert found.note == "x.tif: it has 3 images: only the first is read"
    assert np.abs(found.image.astype(int) - pixels).mean() < 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_decode_image_names_truncated_files(pixels, kind, share):
    content = saved(pixels, kind)
    with pytest.raises(UserError, match=r"^a/x\.jpg is (incomplete: the file ends|damaged)"):
        decoded(content[: int(share * len(content))], "a/x.jpg")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG", "PNG", "WEBP"])
def test_decode_image_says_that_a_truncated_file_is_incomplete(pixels, kind):
    content = saved(pixels, kind)
    with pytest.raises(UserError, match="is incomplete"):
        decoded(content[: len(content) * 3 // 4])


def test_decode_image_checks_the_sums_of_a_png(pixels):
    """Each changed byte is found, also in an uncompressed image, where it is one pixel."""
    content = saved(pixels, "PNG", compress_level=0)
    for at in np.linspace(50, len(content) - 20, 20).astype(int):
        with pytest.raises(UserError, match="is damaged"):
            decoded(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


@pytest.mark.parametrize("kind", KINDS)
def test_decode_image_survives_any_damage(pixels, kind):
    content, rng = saved(pixels, kind), np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(content)
        start, size = rng.integers(len(content)), rng.integers(1, 30)
        changed[start : start + size] = rng.bytes(size)
        try:
            found = decoded(bytes(changed)).image
        except UserError:
            continue
        assert found.dtype == np.uint8


def test_decode_image_refuses_too_many_pixels(pixels, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 5999)
    for kind in KINDS:
        with pytest.raises(UserError, match="100 x 60"):
            decoded(saved(pixels, kind))
    huge = bytearray(saved(pixels, "PNG"))
    huge[16:24] = struct.pack(">II", 60000, 60000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    with pytest.raises(UserError, match="million pixels"):
        decoded(bytes(huge))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_decode_image_refuses_16_bits(pixels, kind):
    grey = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(grey, kind)
    suffix = {"PNG": ".png", "TIFF": ".tif", "JPEG2000": ".jp2"}[kind]
    colour = cv2.imencode(suffix, pixels.astype(np.uint16) * 257)[1].tobytes()
    for content in (grey.getvalue(), colour):
        with pytest.raises(UserError, match="x: the image is 16-bit"):
            decoded(content)


def test_decode_image_refuses_negatives_of_cameras(pixels):
    """DNG is TIFF with a version number, and its first image may be a thumbnail."""
    tags = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\x01\x04\x00\x00"
    with pytest.raises(UserError, match=r"x\.tif is a RAW photo"):
        decoded(saved(pixels, "TIFF", tiffinfo=tags), "x.tif")


def test_read_image_names_what_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(UserError, match=r"none\.jpg cannot be read: No such file"):
        read_image(tmp_path / "none.jpg")
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"caf\\xe9\.jpg is empty"):
        read_image(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no permissions of this kind")
def test_read_image_names_a_lack_of_permission(pixels, tmp_path):
    path = save(tmp_path / "x.png", pixels)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # Who is nobody.
    try:
        with pytest.raises(UserError, match=r"x\.png cannot be read: Permission denied"):
            read_image(path)
    finally:
        os.seteuid(user)
