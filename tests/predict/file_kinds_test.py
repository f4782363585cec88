import re

import pytest

from m3dhmr_jax.predict.file_kinds import VIDEO, kind_of, why_not_read

HEADS = {
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF89a",
    "WebP": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    "TIFF": b"MM\x00*",
    "HEIC": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic",
    "AVIF": b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif",
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
}
VIDEO_HEADS = {
    "mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp41",
    "mov": b"\x00\x00\x00\x08wide\x00\x00\x00\x00mdat",
    "avi": b"RIFF\x10\x00\x00\x00AVI LIST",
    "mkv": b"\x1aE\xdf\xa3",
    "ts": (b"G" + bytes(187)) * 2,
    "mts": (bytes(4) + b"G" + bytes(187)) * 2,
}


@pytest.mark.parametrize("kind", HEADS)
def test_kind_of_images(kind):
    assert kind_of(HEADS[kind]) == kind
    assert why_not_read(HEADS[kind], "x.txt") is None


@pytest.mark.parametrize("suffix", VIDEO_HEADS)
def test_kind_of_videos(suffix):
    assert kind_of(VIDEO_HEADS[suffix]) == VIDEO


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "x.jpg", "is empty"),
        (bytes(1000), "x.jpg", "only zeros"),
        (b"<!DOCTYPE html>\n<html>", "x.jpg", "web page"),
        (b"\xef\xbb\xbf\n<html><body>", "x.jpg", "web page"),
        (b'<?xml version="1.0"?><svg xmlns=', "x.png", "SVG"),
        ("Größe und Datum".encode(), "x.jpg", "is text"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "x.jpg", "RAW"),
        (b"II*\x00\x10\x00\x00\x00", "x.NEF", "is a RAW photo"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "x.cr3", "RAW"),
        (VIDEO_HEADS["mp4"], "x.jpg", "is a video"),
        (b"%PDF-1.7", "x.jpg", "PDF"),
        (b"PK\x03\x04", "x.jpg", "archive"),
        (b"\xff\x0a\xfa\x1f", "x.jxl", "JPEG XL"),
        (b"8BPS\x00\x01", "x.psd", "Photoshop"),
        (b"\x01\x02\x03\x04\x80", "x.jpg", "not an image"),
    ],
)
def test_why_not_read_has_a_sentence_for_each(content, name, reason):
    assert re.search(reason, why_not_read(content, name))
