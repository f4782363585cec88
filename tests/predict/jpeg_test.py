import contextlib
import io

import cv2
import numpy as np
import PIL.Image
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.images import decode_image
from m3dhmr_jax.predict.jpeg import OddJpegError, decode_jpeg, tidied


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (320, 240))
    return np.clip(coarse + rng.normal(0, 4, coarse.shape), 0, 255).astype(np.uint8)


def encoded(image, mode="RGB", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def pillow_pixels(content):
    return np.asarray(PIL.Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 5},
        {"subsampling": "4:4:4"},
        {"quality": 30, "optimize": True},
    ],
)
def test_decode_jpeg_reads_healthy_files(image, options):
    content = encoded(image, **options)
    pixels, note = decode_jpeg(content, "RGB", "x")
    np.testing.assert_array_equal(pixels, pillow_pixels(content))
    assert note == ""
    assert tidied(content) == content


@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
def test_decode_jpeg_reads_all_samplings(image, sampling):
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()
    assert decode_jpeg(content, "RGB", "x")[0].shape == image.shape


def app0_end(content):
    return 4 + int.from_bytes(content[4:6], "big")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "odd",
    ["after the end", "between segments", "zeros before the end", "fill bytes"],
)
def test_decode_jpeg_accepts_what_cameras_leave(image, odd, progressive):
    content = encoded(image, progressive=progressive)
    at = app0_end(content)
    changed = {
        "after the end": content + b"\x00\xff\xd8trailing" * 100,
        "between segments": content[:at] + b"junk!" + content[at:],
        "zeros before the end": content[:-2] + bytes(30) + content[-2:],
        "fill bytes": content[:at] + b"\xff\xff" + content[at:],
    }[odd]
    pixels, note = decode_jpeg(changed, "RGB", "x")
    np.testing.assert_array_equal(pixels, pillow_pixels(content))
    assert note == ""


def test_decode_jpeg_reads_cmyk(image):
    content = encoded(image, "CMYK")
    pixels, _ = decode_jpeg(content, "CMYK", "x")
    np.testing.assert_array_equal(255 - pixels, pillow_pixels(content))


def test_decode_jpeg_notes_a_missing_end_mark(image):
    content = encoded(image)
    pixels, note = decode_jpeg(content[:-2], "RGB", "x")
    np.testing.assert_array_equal(pixels, pillow_pixels(content))
    assert "end mark is missing" in note


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_decode_jpeg_rejects_truncated_files(image, share, progressive):
    content = encoded(image, progressive=progressive)
    with pytest.raises(UserError, match=r"^x\.jpg is incomplete"):
        decode_jpeg(content[: int(share * len(content))], "RGB", "x.jpg")


def test_decode_jpeg_rejects_400_replaced_bytes(image):
    """Zeros or random bytes; a few lead to the right number of blocks, which nothing can tell."""
    content, rng = encoded(image, quality=90), np.random.default_rng(0)
    reasons = []
    for i in range(100):
        at = int(rng.integers(len(content) // 4, len(content) - 600))
        wrong = bytes(400) if i % 2 else rng.bytes(400)
        with contextlib.suppress(OddJpegError):
            try:
                decode_jpeg(content[:at] + wrong + content[at + 400 :], "RGB", "x")
            except UserError as error:
                reasons.append(str(error))
    assert len(reasons) >= 90
    assert all(reason.startswith(("x is damaged", "x is incomplete")) for reason in reasons)


def three_by_one():
    """A grey image of 24 x 8 px whose chroma is sampled once in three columns."""
    content = bytearray(encoded(np.full((8, 24, 3), 128, np.uint8), subsampling="4:4:4"))
    content[content.index(b"\xff\xc0") + 11] = 0x31
    scan = content.index(b"\xff\xda")
    content[scan + 5 : scan + 11] = bytes([1, 0, 2, 0, 3, 0])  # All use the first tables,
    blocks = "001010" * 5 + "11"  # in which this is a block without any detail.
    return bytes(content[: scan + 14]) + int(blocks, 2).to_bytes(4, "big") + b"\xff\xd9"


@pytest.mark.parametrize("odd", ["JFIF", "few bytes", "sampling"])
def test_decode_jpeg_leaves_odd_files_to_a_tolerant_decoder(image, odd):
    content = encoded(image)
    changed = {
        "JFIF": content.replace(b"JFIF\x00\x01", b"JFIF\x00\x07"),
        "few bytes": content[:-2] + b"\x7f" * 4 + content[-2:],
        "sampling": three_by_one(),
    }[odd]
    assert changed != content
    with pytest.raises(OddJpegError):
        decode_jpeg(changed, "RGB", "x")
    decoded = decode_image(np.frombuffer(changed, np.uint8), "x").image
    want = np.full((8, 24, 3), 128) if odd == "sampling" else pillow_pixels(content)
    np.testing.assert_array_equal(decoded, want)
